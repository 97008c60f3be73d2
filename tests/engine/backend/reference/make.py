"""Write the reference files of this folder: what the Pulumi CLI makes of the same input.

To follow a newer CLI, put it on PATH and run ``python -m tests.engine.backend.reference.make``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PASSPHRASE = "correct-horse"  # noqa: S105 - of the reference files only
ENVIRONMENT = {
    "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
    "PULUMI_SKIP_UPDATE_CHECK": "true",
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
}
PROJECT = """\
name: sample
runtime: {{name: python, options: {{toolchain: uv, virtualenv: {venv}}}}}
"""
LOCK = 'version = 1\nrequires-python = ">=3.11"\n'

DUMP_CONFIG = """\
import json, os
with open(os.environ["DUMP"], "w") as file:
    given = {"config": json.loads(os.environ["PULUMI_CONFIG"])}
    given["secret_keys"] = sorted(json.loads(os.environ["PULUMI_CONFIG_SECRET_KEYS"]))
    json.dump(given, file, indent=1, sort_keys=True, ensure_ascii=False)
"""
OUTPUTS = """\
import os, pulumi, shutil
shutil.copytree(os.environ["LOCKS"], os.environ["DUMP"])
pulumi.export("plain", "a<b> & schön")
pulumi.export("hidden", pulumi.Output.secret("s3cret"))
"""

# Each step works on what the steps before it left.
EDITS: list[list[str]] = [
    ["set", "text", "plain"],
    ["set", "number", "5"],
    ["set", "zeros", "012"],
    ["set", "flag", "true"],
    ["set", "aws:region", "us-west-2"],
    ["set", "sample:config:legacy", "old"],
    ["set", "a:b:c", "x"],
    ["set", "lines", "one\ntwo\n"],
    ["set", "date", "2026-06-01"],
    ["set", "yes", "yes"],
    ["set", "empty", ""],
    ["set", "dotted.name", "x"],
    ["set", "--path", "top", "5"],
    ["set", "--path", "map.number", "5"],
    ["set", "--path", "map.zeros", "007"],
    ["set", "--path", "map.zero", "0"],
    ["set", "--path", "--", "map.negative", "-5"],
    ["set", "--path", "map.float", "1.5"],
    ["set", "--path", "map.big", "18446744073709551615"],
    ["set", "--path", "map.bigger", "18446744073709551616"],
    ["set", "--path", "map.flag", "true"],
    ["set", "--path", "map.inner.deep", "x"],
    ["set", "--path", "map.number.deep", "x"],
    ["set", "--path", "list[0]", "a"],
    ["set", "--path", "list[1]", "b"],
    ["set", "--path", "list[3]", "d"],
    ["set", "--path", "list.name", "x"],
    ["set", "--path", "map[0]", "x"],
    ["set", "--path", "gap[2].b", "c"],
    ["set", "--path", "text.now", "map"],
    ["set", "--path", '["dotted.name"]', "y"],
    ["set", "--path", '["dotted.name"]["a.b"]', "z"],
    ["set", "--path", 'quoted["a\\"b"]', "z"],
    ["set", "--path", "aws:tags.owner", "me"],
    ["set", "--path", "reserved.secure", "x"],
    ["set", "--path", "map.", "x"],
    ["set", "--path", "map[x]", "x"],
    ["set", "--path", "pair.secure", "--secret", "x"],
    ["set", "--secret", "hidden", "s3cret"],
    ["set", "--secret", "--path", "map.hidden", "12"],
    ["set", "--path", "hidden.deep", "x"],
    ["rm", "number"],
    ["rm", "absent"],
    ["rm", "--path", "list[0]"],
    ["rm", "--path", "list[7]"],
    ["rm", "--path", "map.inner.deep"],
    ["rm", "--path", "map.absent.deep"],
    ["rm", "--path", "gap"],
]


def main() -> None:
    """Write everything."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ.update(
            ENVIRONMENT | {"PULUMI_HOME": str(work / "home"), "PULUMI_BACKEND_URL": f"file://{work}/state"}
        )
        given(work)
        edits(work)
        state(work)


def given(work: Path) -> None:
    """What a program is given of the settings in ``config/``."""
    project = new_project(work, DUMP_CONFIG)
    text = (HERE / "config" / "Pulumi.yaml").read_text()
    (project / "Pulumi.yaml").write_text((project / "Pulumi.yaml").read_text() + text[text.index("config:") :])
    shutil.copy(HERE / "config" / "Pulumi.dev.yaml", project)
    pulumi(project, "stack", "init", "dev")
    pulumi(project, "preview", DUMP=str(HERE / "config" / "given.json"))


def edits(work: Path) -> None:
    """What `config set` and `config rm` make of a file, step by step."""
    project = new_project(work, "")
    pulumi(project, "stack", "init", "dev")
    steps = []
    for arguments in EDITS:
        error = pulumi(project, "config", *arguments, check=False)
        listed = subprocess.run(
            ["pulumi", "config", "--json", "--show-secrets"], cwd=project, capture_output=True, check=True
        )
        values = {key: value["value"] for key, value in sorted(json.loads(listed.stdout).items())}
        steps.append({"command": arguments, "refused": error.partition("error: ")[2].strip(), "values": values})
    (HERE / "edits.json").write_text(json.dumps(steps, indent=1, ensure_ascii=False) + "\n")


def state(work: Path) -> None:
    """A backend folder after an update with secret outputs, and the lock during it."""
    shutil.rmtree(HERE / "state", ignore_errors=True)
    project = new_project(work, OUTPUTS)
    pulumi(project, "stack", "init", "dev")
    pulumi(project, "stack", "init", "empty")
    locks = work / "state" / ".pulumi" / "locks"
    pulumi(project, "up", "--yes", "--skip-preview", "--stack=dev", DUMP=str(work / "locks"), LOCKS=str(locks))
    pulumi(project, "stack", "init", "zipped", PULUMI_DIY_BACKEND_GZIP="true")
    shutil.copytree(work / "state", HERE / "state")
    shutil.rmtree(HERE / "state" / ".pulumi" / "locks")
    for file in (HERE / "state").rglob("*.bak*"):
        file.unlink()
    for file in (HERE / "state").rglob("*.json"):
        file.write_text(
            json.dumps(without_paths(json.loads(file.read_text())), ensure_ascii=False, separators=(",", ":"))
        )
    for lock in (work / "locks").rglob("*.json"):
        content = json.loads(lock.read_text()) | {"username": "someone", "hostname": "elsewhere"}
        copy = HERE / "state" / "locks" / lock.relative_to(work / "locks")
        copy.parent.mkdir(parents=True)
        copy.write_text(json.dumps(content))
    shutil.copy(project / "Pulumi.dev.yaml", HERE / "state")
    export = json.loads(pulumi(project, "stack", "export", "--stack=dev", output=True))
    (HERE / "state" / "export.json").write_text(json.dumps(without_paths(export), ensure_ascii=False, indent=1) + "\n")


def without_paths(value: object) -> object:
    """``value`` without what tells where it was made."""
    if isinstance(value, dict):
        private = {"sourcePosition", "stackTrace", "runtime.executable"}
        return {key: without_paths(item) for key, item in value.items() if key not in private}
    return [without_paths(item) for item in value] if isinstance(value, list) else value


def new_project(work: Path, program: str) -> Path:
    """A project folder with an empty backend beside it."""
    for name in ("home", "state", "project"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir()
    venv = Path(os.environ.get("VIRTUAL_ENV", Path.cwd() / ".venv"))
    files = {"Pulumi.yaml": PROJECT.format(venv=venv), "uv.lock": LOCK, "__main__.py": program}
    for name, text in files.items():
        (work / "project" / name).write_text(text)
    return work / "project"


def pulumi(project: Path, *arguments: str, check: bool = True, output: bool = False, **environment: str) -> str:
    """Run the CLI; returns what it wrote, of the errors unless ``output``."""
    done = subprocess.run(
        ["pulumi", "--non-interactive", *arguments],
        cwd=project,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise SystemExit(f"pulumi {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout if output else done.stderr


if __name__ == "__main__":
    main()
