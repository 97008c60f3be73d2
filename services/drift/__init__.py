"""Detects drift: compares a model's recent answers with those to held-out rows (`README.md`).

The training's evaluation writes the reference, and the model server compares its answers with it.
"""
