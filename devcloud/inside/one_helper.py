"""Runs a Neutron agent, or its privileged helper, with one helper for all kinds of privileged calls.

`one_helper.py PROGRAM ARGUMENT...`. Neutron starts up to four helpers an agent, 90 MiB each, that differ only in their
capabilities. The general one's are a superset of the others'.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
import runpy
import sys

if not sys.argv[1].endswith("privsep-helper"):
    import neutron.cmd.eventlet  # noqa: F401  (patches the standard library, which must come first)

from neutron import privileged
from oslo_privsep.priv_context import PrivContext

for name, value in list(vars(privileged).items()):
    if isinstance(value, PrivContext):
        setattr(privileged, name, privileged.default)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
