"""Tells whether what a model is asked has changed: its answers of a while beside those to held-out rows (`README.md`).

The training's evaluation writes the reference, the model server holds its own answers against it. For numpy and scipy.
"""
