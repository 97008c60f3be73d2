"""Every program and image that a cluster needs, in one directory: with an inventory, digests and a bill of materials.

`bundle.manifest` says what there is, `bundle.build` gets it, `bundle.store` is the directory.
"""
