"""The forge on the cluster: what of k8s/ it takes, for the settings of a stack, and its Secrets."""

import base64
import copy
import hashlib
from collections.abc import Mapping

from pulumi import Input, Output

from infra import gitops, secret_layout
from infra.manifests import Manifest
from infra.secret_layout import MONITORING, Generated
from infra.settings import Settings

FORGE = "forge"
"""Its host name, and the name of its Secrets."""
FOLDER = "platform/forge"
ADMIN = "admin"
_KEYS = ("database", "secret-key", "internal-token", "jwt", "runner", "copies", "metrics")


def wanted(settings: Settings) -> bool:
    """Whether the stack has a forge."""
    return settings.platform is not None and settings.platform.forge is not None


def passwords(settings: Settings) -> list[str]:
    """Names of the passwords that the forge takes."""
    if not wanted(settings):
        return []
    return [f"{FORGE}-{name}" for name in (*_KEYS, *(f"user-{user}" for user in _users(settings)))]


def adapted(manifests: list[Manifest], settings: Settings) -> list[Manifest]:
    """The kustomization's objects, for as many jobs as the stack wants: pods, and what their namespace may take."""
    assert settings.platform
    assert settings.platform.forge
    made: list[Manifest] = copy.deepcopy(manifests)
    (keeper,) = (one for one in made if one["kind"] == "Deployment")
    (container,) = keeper["spec"]["template"]["spec"]["containers"]
    jobs = settings.platform.forge.jobs
    container["env"] = [{"name": "JOBS", "value": str(jobs)}]
    (template,) = (one for one in made if one["kind"] == "PodTemplate")
    (job,) = template["template"]["spec"]["containers"]
    (quota,) = (one for one in made if one["kind"] == "ResourceQuota")
    # One pod more is there while it ends.
    quota["spec"]["hard"]["limits.memory"] = f"{(jobs + 1) * _gibibytes(job['resources']['limits']['memory'])}Gi"
    return made


def secrets(
    settings: Settings, made: Mapping[str, Output[str]], *, monitored: bool
) -> dict[str, dict[str, Input[str]]]:
    """The Secrets, by `<namespace>/<name>`, of the passwords that were made."""
    if not wanted(settings):
        return {}
    found: dict[str, dict[str, Input[str]]] = {}
    for name, layout in secret_layout.FORGE.items():
        if monitored or not name.startswith(f"{MONITORING}/"):
            found[name] = {
                key: made[content.password] if isinstance(content, Generated) else made[f"{FORGE}-jwt"].apply(_key)
                for key, content in layout.keys.items()
            }
    found[f"platform/{FORGE}-users"] |= {**credentials(settings, made), **gitops.forge_users(settings, made)}
    return found


def credentials(settings: Settings, made: Mapping[str, Output[str]]) -> dict[str, Input[str]]:
    """Each user's password."""
    return {user: made[f"{FORGE}-user-{user}"] for user in _users(settings)}


def _users(settings: Settings) -> list[str]:
    assert settings.platform
    return [ADMIN, *settings.platform.forge.users] if settings.platform.forge else []


def _gibibytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi"))


def _key(password: str) -> str:
    """A password as a key of 32 bytes, as Gitea reads one."""
    return base64.urlsafe_b64encode(hashlib.sha256(password.encode()).digest()).decode().rstrip("=")
