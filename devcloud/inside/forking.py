"""Runs a daemon whose privileged helpers are forks of itself: `forking.py /usr/bin/DAEMON ARGUMENT...`.

oslo.privsep starts its helpers anew, 70 to 100 MiB each, through a command that gains privileges. Here every daemon is
root already; forked helpers do the same and share the daemon's memory. Not for Neutron's agents: their helpers use
pyroute2, which fails in a fork of a process that eventlet has patched.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import runpy
import sys

from oslo_privsep.priv_context import Method, PrivContext

PrivContext.start.__defaults__ = (Method.FORK,)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
