"""Brings a bundle's programs and images to a node: asks what is missing there, and copies no more than that."""

from __future__ import annotations

import hashlib
import json
import tarfile
from functools import cache
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

BUILD = "Build it: lab bundle build"


@cache
def inventory(bundle):
    """The artifacts in bundle.json."""
    path = Path(bundle, "bundle.json")
    try:
        return json.loads(path.read_text())["artifacts"]
    except (OSError, ValueError, KeyError) as error:
        raise AnsibleActionFail(f"{path} cannot be read: {error}. {BUILD}") from error


def select(bundle, kind, wanted):
    """The inventory's entry for one wanted program or image; a sentence where there is none."""
    name, version = wanted["name"], wanted.get("version")
    named = [entry for entry in inventory(bundle) if entry["kind"] == kind and entry["name"] == name]
    found = [entry for entry in named if version in {None, entry["version"]}]
    if len(found) == 1:
        return found[0]
    if named:
        has = ", ".join(sorted(entry["version"] for entry in named))
        return f"The bundle has {kind} {name} in {has}; wanted: {version or 'one version'}."
    return f"The bundle has no {kind} {name}."


def digest(archive):
    """Digest by which containerd knows the image in an OCI archive."""
    with tarfile.open(archive) as tar, tar.extractfile("index.json") as index:
        return json.load(index)["manifests"][0]["digest"]


def fault(bundle, entry):
    """What is wrong with a file of the bundle; None where it is as bundle.json says."""
    try:
        with Path(bundle, entry["path"]).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{entry['path']}: {error.strerror}."
    return None if found == entry["sha256"] else f"{entry['path']} is corrupt: its SHA-256 is {found}."


class ActionModule(ActionBase):
    """See the module's documentation."""

    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "bundle": {"type": "path", "required": True},
                "programs": {"type": "list", "elements": "dict", "default": []},
                "images": {"type": "list", "elements": "dict", "default": []},
                "signatures": {"type": "list", "elements": "dict", "default": []},
                "manifests": {"type": "list", "elements": "dict", "default": []},
                "units": {"type": "list", "elements": "dict", "default": []},
                "registry": {},
                "state": {"choices": ["present", "verified"], "default": "present"},
            }
        )
        bundle = arguments["bundle"]
        pairs = [(kind, one) for kind in ("program", "image", "signature") for one in arguments[f"{kind}s"]]
        found = [(one, select(bundle, kind, one)) for kind, one in pairs]
        faults = [entry for _, entry in found if isinstance(entry, str)]
        if arguments["state"] == "verified":
            texts = [select(bundle, kind, one) for kind in ("manifest", "unit") for one in arguments[f"{kind}s"]]
            chosen = [entry for _, entry in found] + texts
            entries = {entry["path"]: entry for entry in chosen if not isinstance(entry, str)}
            faults = [entry for entry in chosen if isinstance(entry, str)]
            return result | {"faults": faults + [said for entry in entries.values() if (said := fault(bundle, entry))]}
        if faults:
            raise AnsibleActionFail(" ".join([*faults, BUILD]))
        wanted = [self._described(bundle, one, entry) for one, entry in found]
        asked = {"wanted": wanted, "registry": arguments["registry"]}
        query = self._execute_module("artifacts", asked, task_vars=task_vars)
        if query.get("failed"):
            return result | query
        missing = query["missing"]
        if not missing or self._task.check_mode:
            return result | query | {"changed": bool(missing)}
        folder = self._make_tmp_path()
        staged = {}
        for number, key in enumerate(missing):
            target = self._connection._shell.join_path(folder, str(number))
            staged[key] = self._transfer_file(str(Path(bundle, key)), target)
        done = self._execute_module("artifacts", asked | {"staged": staged}, task_vars=task_vars)
        self._remove_tmp_path(folder)
        return result | done | {"artifacts": missing}

    def _described(self, bundle, one, entry):
        """What the node must know of an artifact."""
        about = {"key": entry["path"], **{name: entry[name] for name in ("path", "kind", "sha256")}}
        if entry["kind"] == "program":
            return about | {"dest": one["dest"]}
        # A signature's tag has its image's digest.
        tag = entry["tags"][0] if entry["kind"] == "signature" else entry["version"]
        reference = f"localhost/{entry['name']}:{tag}"
        return about | {"reference": reference, "digest": digest(Path(bundle, entry["path"]))}
