"""Serves a model of an MLflow registry by the Open Inference Protocol (V2), on KServe's server."""
