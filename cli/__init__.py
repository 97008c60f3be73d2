"""The `lab` command: thin verbs over the engine, its backends and the cloud."""
