"""`lab bundle` on a family of one small program: what is built, kept, made good, taken and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from bundle.manifest import load
from bundle.store import Store
from tests.bundle.conftest import CACHE, HELLO, Copy, copy_code, unpack

PROGRAM, IMAGE = "bin/hello/v1.2.3/hello", "images/hello_v1.2.3.tar"
OF_DEBIAN = """
families:
  shell:
    version: v1.35.0
    images:
      shell: {packages: [busybox-static], entrypoint: [/bin/sh], overlay: shell, tags: [latest]}
"""
OF_LAYERS = """
layers:
  lower: {packages: [busybox-static]}
  upper: {base: lower}
families:
  stacked:
    version: v1.0.0
    group: platform
    images:
      stacked: {layer: upper, entrypoint: [/bin/sh]}
"""
OFFLINE = {"GOPROXY": "off"}
SHARING = ("local-path", "metrics-server", "network-policy")
"""Families made for the most part of Kubernetes' libraries."""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def processes_in(folder: Path) -> list[str]:
    """Command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line:
            found.append(line.decode(errors="replace"))
    return found


def test_the_program_runs_and_knows_its_version(built: Copy) -> None:
    output = subprocess.run([built.bundle / PROGRAM], check=True, capture_output=True, text=True).stdout
    assert output == "v1.2.3 terminated\n"
    assert [artifact.path for artifact in built.inventory.artifacts] == [PROGRAM, IMAGE]


def test_the_image_is_what_the_manifest_says(built: Copy) -> None:
    reference = f"oci-archive:{built.bundle / IMAGE}:localhost/hello:v1.2.3"
    result = json.loads(subprocess.run(["skopeo", "inspect", reference], check=True, capture_output=True).stdout)
    config = subprocess.run(["skopeo", "inspect", "--config", reference], check=True, capture_output=True).stdout
    image = next(artifact for artifact in built.inventory.artifacts if artifact.kind == "image")
    assert result["Digest"] == image.digest
    assert len(result["Layers"]) == 1
    assert json.loads(config)["config"] == {
        "User": "1000:1000",
        "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Entrypoint": ["/usr/local/bin/hello"],
    }


def test_a_second_build_makes_nothing(built: Copy) -> None:
    before = files(built.bundle), (built.bundle / PROGRAM).stat()
    output = built.build("--cache", built.tree / "no-cache", env=OFFLINE)
    assert "hello v1.2.3" not in output
    assert (files(built.bundle), (built.bundle / PROGRAM).stat()) == before


def test_equal_inputs_give_equal_bundles_wherever_they_are(built: Copy, tmp_path: Path, cold: Path) -> None:
    built.build()
    elsewhere = copy_code(tmp_path / "a/longer path")
    elsewhere.build("--cache", cold, umask=0o077)
    assert files(built.bundle) == files(elsewhere.bundle)


def test_an_image_of_debian_packages_is_the_same_twice(copy: Copy, tmp_path: Path) -> None:
    elsewhere = copy_code(tmp_path / "elsewhere")
    for one in (copy, elsewhere):
        (one.tree / "bundle/overlays/shell/etc").mkdir(parents=True)
        (one.tree / "bundle/overlays/shell/etc/motd").write_text("hello\n")
        (one.tree / "bundle/overlays/shell/etc/motd").chmod(0o644 if one is copy else 0o600)
        (one.tree / "bundle/overlays/shell/shell").symlink_to("bin/sh")
        one.manifest(OF_DEBIAN)
        one.build(umask=0o022 if one is copy else 0o077)
    assert files(copy.bundle) == files(elsewhere.bundle)
    [image] = copy.inventory.artifacts
    assert set(image.packages) == {"busybox-static"}
    components = json.loads((copy.bundle / "sbom.cdx.json").read_text())["components"]
    listed = {PackageURL.from_string(component["purl"]) for component in components if "purl" in component}
    assert listed == {PackageURL("deb", "debian", "busybox-static", image.packages["busybox-static"])}
    for tag in ("v1.35.0", "latest"):
        reference = f"oci-archive:{copy.bundle / image.path}:localhost/shell:{tag}"
        result = json.loads(subprocess.run(["skopeo", "inspect", reference], check=True, capture_output=True).stdout)
        assert result["Digest"] == image.digest
    root = tmp_path / "root"
    unpack(copy.bundle / image.path, root)
    assert (root / "shell").readlink() == Path("bin/sh")
    assert (root / "bin/sh").readlink() == Path("busybox")
    assert (root / "etc/motd").read_text() == "hello\n"
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "var/lib/dpkg/status.d/busybox-static").exists()
    assert not any((root / path).exists() for path in ("var/cache", "var/lib/apt", "usr/share/doc"))
    assert {path.lstat().st_mtime for path in root.rglob("*")} == {0}


def layers_of(image: Path) -> list[str]:
    """Digests of an image's layers, the lowest first."""
    result = subprocess.run(["skopeo", "inspect", f"oci-archive:{image}"], check=True, capture_output=True).stdout
    layers: list[str] = json.loads(result)["Layers"]
    return layers


def test_a_layer_is_made_again_only_when_it_changes_and_is_the_same_everywhere(copy: Copy, tmp_path: Path) -> None:
    elsewhere = copy_code(tmp_path / "elsewhere")
    found = []
    for one, cache, text in ((copy, "one", "a"), (copy, "one", "b"), (elsewhere, "other", "b")):
        one.manifest(OF_LAYERS)
        etc = one.tree / "images/upper/files/etc"
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "motd").write_text(text)
        if one is elsewhere:
            # What a run of the tests leaves in a checkout.
            (etc / "__pycache__").mkdir()
            (etc / "__pycache__/motd.cpython-311.pyc").write_text("compiled elsewhere")
        one.build("--cache", tmp_path / cache)
        made = [path.stat().st_mtime for path in (tmp_path / cache / "layers").glob("lower-*/layer.json")]
        found.append((layers_of(one.bundle / "images/stacked_v1.0.0.tar"), made))
    (first, second, third) = (layers for layers, _ in found)
    assert (len(first), first[0], second) == (2, second[0], third)
    assert first[1] != second[1]
    assert found[0][1] == found[1][1]
    assert files(copy.bundle) == files(elsewhere.bundle)


def test_another_version_replaces_the_old_files(built: Copy) -> None:
    built.manifest(HELLO.replace("v1.2.3", "v1.2.4"))
    built.build()
    assert sorted(path for path in files(built.bundle) if "/" in path) == [
        "bin/hello/v1.2.4/hello",
        "images/hello_v1.2.4.tar",
    ]
    assert built.run("verify").returncode == 0


@pytest.mark.parametrize("path", [PROGRAM, IMAGE, "sbom.cdx.json"])
def test_a_flipped_bit_is_found_and_made_good(built: Copy, path: str) -> None:
    good = files(built.bundle)
    content = bytearray(good[path])
    content[len(content) // 2] ^= 1
    (built.bundle / path).write_bytes(content)
    refused = built.run("verify")
    assert refused.returncode == 1
    assert path in refused.stderr
    assert "Traceback" not in refused.stderr
    built.build()
    assert files(built.bundle) == good


def test_missing_and_foreign_files_are_found(built: Copy) -> None:
    (built.bundle / PROGRAM).unlink()
    (built.bundle / "bin/hello/v1.2.3/other").write_text("")
    refused = built.run("verify").stderr
    assert f"{PROGRAM}: missing" in refused
    assert "bin/hello/v1.2.3/other: not in bundle.json" in refused
    built.build()
    assert built.run("verify").returncode == 0


def test_a_broken_inventory_is_refused_with_a_remedy(built: Copy) -> None:
    (built.bundle / "bundle.json").write_text("{")
    for verb in ("verify", "ls", "build"):
        refused = built.run(verb)
        assert refused.returncode == 1
        assert "bundle.json cannot be read" in refused.stderr
        assert "remedy: delete it" in refused.stderr


def test_a_killed_build_leaves_nothing_at_work_and_goes_on(copy: Copy, cold: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    build = subprocess.Popen(
        copy.command("build", "--cache", cold), cwd=copy.tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    go = str(cold / "go/go")
    deadline = time.monotonic() + 60
    while not any(go in line and "build" in line for line in processes_in(cold)):
        assert build.poll() is None, build.communicate()
        assert time.monotonic() < deadline
    build.kill()
    build.wait()
    while any(go in line for line in processes_in(cold)):
        assert time.monotonic() < deadline, "the compiler goes on"
    assert not (copy.bundle / "bundle.json").exists()
    assert not list(temporary.iterdir())
    copy.build("--cache", cold)
    assert copy.run("verify").returncode == 0
    assert not (copy.bundle / ".work").exists()


def test_an_interrupted_build_says_so_and_ends(copy: Copy, cold: Path) -> None:
    # A shell lets what it runs in the background ignore the signal, tests too.
    command = ["env", "--default-signal=INT", *map(str, copy.command("build", "--cache", cold))]
    build = subprocess.Popen(command, cwd=copy.tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not processes_in(cold / "go/go"):
        assert build.poll() is None, build.communicate()
        assert time.monotonic() < deadline
    build.send_signal(signal.SIGINT)
    _, output = build.communicate(timeout=120)
    assert build.returncode == 130
    assert output == "interrupted: `lab bundle build` continues\n"


def test_the_bill_of_materials_is_that_of_what_a_killed_build_left(built: Copy) -> None:
    """Its last step did not come: the inventory is newer."""
    good = files(built.bundle)
    inventory = built.inventory
    inventory.sbom_sha256 = ""
    built.store.write(inventory)
    (built.bundle / "sbom.cdx.json").write_text("{}")
    built.build()
    assert files(built.bundle) == good


def test_two_builds_at_once_take_turns(copy: Copy) -> None:
    both = [
        subprocess.Popen(copy.command("build"), cwd=copy.tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for build in both:
        output, _ = build.communicate()
        assert build.returncode == 0, output
    assert copy.run("verify").returncode == 0


def test_a_bundle_is_taken_from_another_without_network_or_compiler(built: Copy, tmp_path: Path) -> None:
    new = Copy(built.tree, tmp_path / "new")
    new.build("--from", built.bundle, "--cache", tmp_path / "no-cache", env=OFFLINE)
    assert files(new.bundle) == files(built.bundle)


def test_nothing_broken_is_taken_from_another_bundle(built: Copy, tmp_path: Path) -> None:
    good = (built.bundle / PROGRAM).read_bytes()
    (built.bundle / PROGRAM).unlink()
    (built.bundle / PROGRAM).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    new = Copy(built.tree, tmp_path / "new")
    new.build("--from", built.bundle)
    assert (new.bundle / PROGRAM).read_bytes() == good


def test_what_manifest_lock_says_is_enforced(built: Copy) -> None:
    lock = built.tree / "bundle/manifest.lock"
    built.build("--update-lock")
    shutil.rmtree(built.bundle)
    assert "note:" not in built.build()
    sha256 = next(artifact.sha256 for artifact in built.inventory.artifacts if artifact.path == PROGRAM)
    lock.write_text(lock.read_text().replace(sha256, "0" * 64))
    refused = built.run("verify")
    assert refused.returncode == 1
    assert f"{PROGRAM} has SHA-256 {sha256}; manifest.lock has {'0' * 64}" in refused.stderr
    shutil.rmtree(built.bundle)
    refused = built.run("build")
    assert refused.returncode == 1
    assert f"{PROGRAM} has SHA-256 {sha256}; manifest.lock has {'0' * 64}" in refused.stderr
    assert not (built.bundle / PROGRAM).exists()


def test_another_tool_than_the_locked_one_is_noted(built: Copy) -> None:
    lock = built.tree / "bundle/manifest.lock"
    built.build("--update-lock")
    shutil.rmtree(built.bundle)
    altered = json.loads(lock.read_text())
    for artifact in next(iter(altered.values())):
        if artifact["kind"] == "image":
            artifact["tools"]["buildah"], artifact["sha256"] = "0.1", "0" * 64
    lock.write_text(json.dumps(altered))
    assert re.search(rf"note: {IMAGE}: .*buildah \S+, not 0\.1", built.build())


def test_the_bill_of_materials_is_valid_and_names_go_modules(built: Copy) -> None:
    text = (built.bundle / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    result = json.loads(text)
    by_reference = {component["bom-ref"]: component for component in result["components"]}
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in result["dependencies"]}
    assert depends[IMAGE] == [PROGRAM]
    go = CACHE / f"go/go{load().go.version}/bin/go"
    lines = subprocess.run([go, "version", "-m", built.bundle / PROGRAM], check=True, capture_output=True, text=True)
    used = {tuple(line.split("\t")[2:4]) for line in lines.stdout.splitlines() if line.startswith("\tdep")}
    assert used
    assert {(by_reference[one]["name"], by_reference[one]["version"]) for one in depends[PROGRAM]} == used


def test_missing_tools_are_named_together_before_anything_starts(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(
        HELLO.replace("stamps", "cgo: true\n    stamps")
        + OF_DEBIAN.replace("\nfamilies:\n", "").replace(", overlay: shell", "")
    )
    path = tmp_path / "bin"
    path.mkdir()
    (path / "setpriv").symlink_to(shutil.which("setpriv") or "")
    refused = copy.run("build", env={"PATH": str(path)})
    assert refused.returncode == 1
    assert "this machine lacks buildah, gcc" in refused.stderr
    assert re.search(r"remedy: as root: apt-get install .*buildah.* mmdebstrap", refused.stderr)
    assert "hello" not in refused.stdout
    assert not (copy.bundle / "bundle.json").exists()


def test_a_toolchain_that_cannot_be_had_is_an_error_with_a_remedy(copy: Copy, tmp_path: Path) -> None:
    refused = copy.run("build", "--cache", tmp_path / "empty", env={"GOPROXY": "http://127.0.0.1:9"})
    assert refused.returncode == 1
    assert "the Go toolchain could not be fetched from http://127.0.0.1:9/" in refused.stderr
    assert "remedy: " in refused.stderr


def test_a_family_takes_the_go_that_it_names_if_that_is_pinned(copy: Copy, tmp_path: Path) -> None:
    (newer,) = load().go.others
    for version, told in (
        (newer, f"from http://127.0.0.1:9/golang.org/toolchain/@v/v0.0.1-go{newer}.linux-"),
        ("1.99.0", "families.hello.go: go.others does not pin 1.99.0"),
    ):
        copy.manifest(HELLO.replace("    module: hello\n", f"    module: hello\n    go: {version}\n"))
        refused = copy.run("build", "--cache", tmp_path / "empty", env={"GOPROXY": "http://127.0.0.1:9"})
        assert refused.returncode == 1
        assert told in refused.stderr


def test_a_program_that_does_not_build_leaves_the_rest_and_says_why(copy: Copy) -> None:
    (copy.tree / "bundle/go/broken").mkdir()
    (copy.tree / "bundle/go/broken/go.mod").write_text("module broken\n\ngo 1.26.0\n")
    (copy.tree / "bundle/go/broken/main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    copy.manifest(HELLO + "  broken: {version: v0.1.0, module: broken, programs: {broken: .}}\n")
    refused = copy.run("build")
    assert refused.returncode == 1
    assert "undefined: undefined" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [artifact.path for artifact in copy.inventory.artifacts] == [PROGRAM, IMAGE]


def test_an_invalid_manifest_is_refused_with_all_errors(copy: Copy) -> None:
    copy.manifest(
        "families:\n  hello: {version: 1.2, module: hello, programs: {hello: .}}\n"
        "  other: {version: v1.0.0, module: nowhere, programs: {other: .}, images: {other: {programs: [missing]}}}\n"
    )
    refused = copy.run("build")
    assert refused.returncode == 1
    for fault in ("families.hello.version", "there is no go/nowhere/go.mod", "the family has no missing"):
        assert fault in refused.stderr
    unknown = copy.run("build", "--only", "x")
    assert unknown.returncode == 1


def test_an_unknown_family_is_refused_with_the_known_ones(copy: Copy) -> None:
    refused = copy.run("build", "--only", "helo")
    assert refused.returncode == 1
    assert "unknown family helo" in refused.stderr
    assert "remedy: choose from: hello" in refused.stderr


def test_the_build_says_what_each_part_adds(copy: Copy) -> None:
    copy.manifest(HELLO.replace("module: hello", "module: hello\n    group: monitoring"))
    copy.build()
    size = sum(artifact.size for artifact in copy.inventory.artifacts) / 1e6
    # All is there: no time is said.
    assert f"monitoring: 2 artifacts, {size:.0f} MB\n" in copy.build()


def test_what_is_optional_is_built_when_asked_for_and_kept(copy: Copy) -> None:
    copy.manifest(HELLO.replace("module: hello", "module: hello\n    optional: true"))
    copy.build()
    assert copy.inventory.artifacts == []
    copy.build("--only", "hello")
    copy.build()
    assert [artifact.path for artifact in copy.inventory.artifacts] == [PROGRAM, IMAGE]


def test_the_lock_keeps_what_this_bundle_is_without(copy: Copy) -> None:
    copy.manifest(HELLO.replace("module: hello", "module: hello\n    optional: true"))
    copy.build("--only", "hello", "--update-lock")
    lock = copy.tree / "bundle/manifest.lock"
    before = lock.read_text()
    shutil.rmtree(copy.bundle)
    copy.build("--update-lock")
    assert lock.read_text() == before
    copy.manifest("families: {}\n")
    copy.build("--update-lock")
    assert PROGRAM not in lock.read_text()


def test_ls_lists_every_artifact(built: Copy) -> None:
    lines = built.run("ls").stdout.splitlines()
    for artifact, line in zip(Store(built.bundle).inventory().artifacts, lines[1:], strict=True):
        assert line.split()[:2] == [artifact.name, artifact.version]
        assert artifact.sha256[:12] in line


def test_a_missing_bundle_is_reported(copy: Copy) -> None:
    refused = copy.run("ls")
    assert refused.returncode == 1
    assert "remedy: run lab bundle build" in refused.stderr


@pytest.mark.usefixtures("built")
def test_families_that_share_packages_with_kubernetes_share_what_was_compiled() -> None:
    """Go compiles a package again for other tags, or another version of anything below it: eight minutes in all."""
    manifest = load()
    go = CACHE / f"go/go{manifest.go.version}/bin/go"

    def versions(family: str) -> dict[str, str]:
        folder = manifest.families[family].folder
        result = subprocess.run([go, "mod", "edit", "-json"], cwd=folder, check=True, capture_output=True)
        return {one["Path"]: one["Version"] for one in json.loads(result.stdout)["Require"]}

    theirs = versions("kubernetes")
    for family in SHARING:
        own = versions(family)
        shared = own.keys() & theirs
        assert {path: own[path] for path in shared} == {path: theirs[path] for path in shared}
        assert manifest.families[family].tags == manifest.families["kubernetes"].tags
