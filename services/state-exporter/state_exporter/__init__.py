"""The state of Kubernetes objects and of what serves, as metrics."""
