"""A deployment engine that speaks Pulumi's protocols, with the semantics and the state format of the Pulumi CLI."""

import os

# The engine forks only to exec; gRPC's fork handlers would stop its threads for nothing and complain on stderr.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Inherited by programs and providers: users need not see what gRPC logs when a connection ends.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
