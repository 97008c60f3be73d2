"""Tests of the resource providers, over gRPC to the real executable."""
