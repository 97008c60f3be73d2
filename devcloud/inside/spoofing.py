"""Makes Neutron's bridge agent flush a port's MAC rules: ebtables 1.8.9 cannot delete a rule with a set of addresses.

Without this, the agent retries the deletion for ever, for example after a hard reboot, and handles no other port.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-def"
from neutron.plugins.ml2.drivers.linuxbridge.agent import arp_protect


def flush(vif, current_rules):
    """Reset a port's chain to its initial rule."""
    chain = arp_protect._mac_chain_name(vif)
    if arp_protect.chain_exists(chain, current_rules):
        arp_protect.ebtables(["-F", chain])
        arp_protect.ebtables(["-A", chain, "-j", "DROP"])


arp_protect._delete_vif_mac_rules = flush
