"""Decides which version of a model each stage serves: gates, verdicts, promotion, rollback, history.

`python -m services.promotion`; README.md has its API. It keeps all of that in PostgreSQL, and has MLflow's registry say
the same, by a credential that no one else has.
"""
