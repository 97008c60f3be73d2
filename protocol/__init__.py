"""Definitions that the engine, the providers and the display share. Imports none of them."""
