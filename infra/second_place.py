"""Where each night's backup is copied to: what of k8s/ that takes, for the settings of a stack, and its Secrets."""

import copy
from collections.abc import Mapping
from urllib.parse import urlsplit

from pulumi import Input, Output

from infra.manifests import Manifest
from infra.naming import resource_name
from infra.settings import Settings

FOLDER = "platform/backup"
STORE = "backup-store"
"""Name, in the namespace `platform`, of all that keeps the copies on a volume; and of its password."""


def folder(settings: Settings) -> str | None:
    """The kustomization of k8s/ that a second place takes; None without one."""
    place = settings.platform.backup.copy_to if settings.platform else None
    return None if place is None else f"{FOLDER}/to-s3" if place.s3 else f"{FOLDER}/to-volume"


def adapted(manifests: list[Manifest], settings: Settings, stack: str) -> list[Manifest]:
    """That kustomization's objects, for the stack's own bucket or volume."""
    assert settings.platform
    place = settings.platform.backup.copy_to
    assert place
    made: list[Manifest] = copy.deepcopy(manifests)
    for one in made:
        if place.s3 is not None and one["kind"] == "NetworkPolicy":
            url = urlsplit(place.s3.endpoint)
            one["spec"]["egress"][0]["ports"][0]["port"] = url.port or (443 if url.scheme == "https" else 80)
        if place.volume is not None and one["kind"] == "PersistentVolume":
            volume = settings.storage.volumes[place.volume]
            assert volume.attach_to
            one["spec"]["capacity"]["storage"] = f"{volume.size_gb}Gi"
            (term,) = one["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
            term["matchExpressions"][0]["values"] = [resource_name(stack, volume.attach_to)]
    return made


def secrets(settings: Settings, stack: str, password: Output[str] | None) -> Mapping[str, dict[str, Input[str]]]:
    """The Secrets, by `<namespace>/<name>`. `password` is that of the store on a volume."""
    place = settings.platform.backup.copy_to if settings.platform else None
    if place is None:
        return {}
    if place.s3 is not None:
        assert settings.backup_secret_key
        bucket = place.s3
        return {
            "platform/backup-copy": {
                "endpoint": bucket.endpoint,
                "bucket": bucket.bucket,
                "prefix": bucket.prefix or stack,
                "region": bucket.region,
                "access-key": bucket.access_key,
                "secret-key": Output.secret(settings.backup_secret_key.get_secret_value().strip()),
            }
        }
    assert password is not None
    identity = {"name": "backup", "credentials": [{"accessKey": "backup", "secretKey": password}], "actions": ["Admin"]}
    return {
        f"platform/{STORE}": {"s3.json": Output.json_dumps({"identities": [identity]})},
        "platform/backup-copy": {
            "endpoint": f"http://{STORE}:8333",
            "bucket": "backups",
            "prefix": stack,
            "access-key": "backup",
            "secret-key": password,
            "makes-bucket": "yes",
        },
    }
