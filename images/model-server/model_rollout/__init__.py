"""Rolls out Deployments when an alias of MLflow's model registry changes, and sets weights of routes."""
