"""Gives each Neutron agent one privileged helper for all privileged calls.

Neutron starts up to four helpers per agent, which differ only in capabilities; the default helper has all of them.
"""

# mypy: disable-error-code="import-not-found,import-untyped"
from neutron import privileged
from oslo_privsep.priv_context import PrivContext

for name, value in list(vars(privileged).items()):
    if isinstance(value, PrivContext):
        setattr(privileged, name, privileged.default)
