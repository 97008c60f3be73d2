"""Rolls Deployments out when an alias of MLflow's model registry names another version; routes follow their pods."""
