"""What an older commit gets wrong, tried on it and here alike: `python -m tests.against COMMIT`.

Each reported fault has a few small programs, manifests or settings: the one that was reported, and others of its kind.
They go through what users have: the `lab` command, the providers' gRPC, the reader of settings. The older commit lies
in a worktree of its own and runs with this checkout's virtual environment.
"""
