"""Trains a model that is one folder, `model.yaml` and one Python module (`README.md`)."""
