"""Delivery figures, as DORA's guide defines them, of infrastructure and of models.

Events come from Git (`git`), a stack's history (`history`), the model registry (`registry`) and the cluster
(`deployments`); `store` stores them in PostgreSQL, `figures` computes the five figures.
docs/how-to/delivery-figures.md has the definitions.
"""
