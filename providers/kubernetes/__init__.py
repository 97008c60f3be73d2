"""The Kubernetes resource provider: the official plugin's tokens, names, replace rules and readiness.

``client`` talks to the API server, ``objects`` knows what can be said of a manifest without it, ``readiness`` when an
object is up, ``resource`` joins them to the one resource type that serves every kind. Server-side apply throughout:
each resource is a field manager of its own.
"""
