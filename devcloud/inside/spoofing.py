"""Neutron's bridge agent sets a port's addresses anew: ebtables 1.8.9 cannot delete a rule that names a set of them.

Neutron tries for ever, for a port of an instance that was rebooted hard, say, and the agent sees to no other port.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def"
from neutron.plugins.ml2.drivers.linuxbridge.agent import arp_protect


def empty(vif, current_rules):
    """Leave of a port's chain what neutron makes it with."""
    chain = arp_protect._mac_chain_name(vif)
    if arp_protect.chain_exists(chain, current_rules):
        arp_protect.ebtables(["-F", chain])
        arp_protect.ebtables(["-A", chain, "-j", "DROP"])


arp_protect._delete_vif_mac_rules = empty
