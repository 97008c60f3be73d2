"""Features of deliveries: kept by Feast, read as of a moment for training and by key for serving. `README.md`."""
