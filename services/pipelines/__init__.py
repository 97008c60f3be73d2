"""Continuous training: a pipeline for each model of the platform, from data to production (`README.md`)."""
