"""Kubernetes on the stack's machines: one resource for the cluster, and one for each node's place in it."""
