"""The worked example: handwritten digits. From data to a promoted model, each step a command (`README.md`)."""
