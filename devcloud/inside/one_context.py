"""Neutron's agents with one privileged helper each, for all kinds of privileged calls.

Neutron starts up to four helpers an agent that differ only in their capabilities. The general one's are a superset.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from neutron import privileged
from oslo_privsep.priv_context import PrivContext

for name, value in list(vars(privileged).items()):
    if isinstance(value, PrivContext):
        setattr(privileged, name, privileged.default)
