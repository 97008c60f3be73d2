"""The cloud's own metrics and log lines on the pages of monitoring: what of k8s/ that takes, for a stack's settings."""

import copy
import json

from infra.manifests import Manifest, capabilities
from infra.secret_layout import MONITORING
from infra.settings import Settings

FOLDER = "platform/cloud"
LOGGING = "logging"
"""The capability without which there is nowhere to copy lines to."""


def wanted(settings: Settings) -> bool:
    """Whether the stack's settings name an address, and its profile has monitoring."""
    platform = settings.platform
    return (
        platform is not None and settings.monitoring.cloud is not None and MONITORING in capabilities(platform.profile)
    )


def adapted(manifests: list[Manifest], settings: Settings) -> list[Manifest]:
    """The kustomization's objects, for the address that the settings name."""
    assert settings.platform
    assert settings.monitoring.cloud
    address, _, port = settings.monitoring.cloud.rpartition(":")
    made: list[Manifest] = copy.deepcopy(manifests)
    for one in made:
        if one["kind"] == "NetworkPolicy":
            for rule in one["spec"].get("egress", ()):
                for peer in (peer for peer in rule["to"] if "ipBlock" in peer):
                    peer["ipBlock"]["cidr"] = f"{address}/32"
                    rule["ports"][0]["port"] = int(port)
        elif (one["kind"], one["metadata"]["name"]) == ("ConfigMap", "cloud"):
            one["data"]["targets.json"] = json.dumps([{"targets": [settings.monitoring.cloud]}])
        elif one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            (source,) = (variable for variable in container["env"] if variable["name"] == "CLOUD")
            source["value"] = f"http://{settings.monitoring.cloud}"
    if LOGGING in capabilities(settings.platform.profile):
        return made
    return [one for one in made if "lines" not in one["metadata"]["name"]]
