"""Rolls Deployments out when an alias of MLflow's model registry points to another version."""
