"""Folders and files of a node in one call: `template` takes three for each file, a quarter second of a core each."""

from __future__ import annotations

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: files
short_description: Make folders and write files, all in one call
description:
  - Makes each folder, then writes each file that differs, whole or not at all.
options:
  folders:
    description: Folders, each with its C(path) and C(mode).
    type: list
    elements: dict
    default: []
  files:
    description:
      - Files, each with its C(dest), C(content) and C(mode). With C(force=false), a file that is there stays as it is.
    type: list
    elements: dict
    default: []
"""
FOLDER = {"path": {"type": "path", "required": True}, "mode": {"type": "str", "required": True}}
FILE = {
    "dest": {"type": "path", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "required": True},
    "force": {"type": "bool", "default": True},
}


def attributes(module, path, mode):
    """Mode of a path, as Ansible's helpers take it."""
    return module.load_file_common_arguments({"path": path, "mode": mode})


def folder(module, path, mode):
    """Make a folder; whether that changed anything."""
    made = not os.path.isdir(path)
    if made and not module.check_mode:
        os.makedirs(path)
    return module.set_fs_attributes_if_different(attributes(module, path, mode), made) if os.path.isdir(path) else made


def read(path):
    """Text of a file; None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(module, one):
    """Write a file; whether that changed anything, and what it had before."""
    dest, before = one["dest"], read(one["dest"])
    if before is not None and not one["force"]:
        return False, before
    differs = before != one["content"]
    if differs and not module.check_mode:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=os.path.dirname(dest), delete=False) as file:
            file.write(one["content"])
        module.atomic_move(file.name, dest)
    if os.path.exists(dest):
        differs = module.set_fs_attributes_if_different(attributes(module, dest, one["mode"]), differs)
    return differs, before


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "default": [], "options": FOLDER},
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
        },
        supports_check_mode=True,
    )
    changed = [one["path"] for one in module.params["folders"] if folder(module, one["path"], one["mode"])]
    diffs = []
    for one in module.params["files"]:
        differs, before = write(module, one)
        if differs:
            changed.append(one["dest"])
            headers = {"before_header": one["dest"], "after_header": one["dest"]}
            diffs.append({**headers, "before": before or "", "after": one["content"]})
    module.exit_json(changed=bool(changed), paths=changed, diff=diffs if module._diff else [])


if __name__ == "__main__":
    main()
