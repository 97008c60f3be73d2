"""Delivery figures, as DORA's guide defines them, of infrastructure and of models.

Events come of Git (`git`), of a stack's history (`history`), of the model registry (`registry`) and of the cluster
(`deployments`); `store` keeps them in PostgreSQL, `figures` works the five figures out.
docs/how-to/delivery-figures.md says what counts as what.
"""
