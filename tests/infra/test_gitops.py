"""Who applies what of a platform that is in Git, and what the controller takes on the cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

import kubeyaml
from infra import gitops
from infra.manifests import TREE, Manifest
from infra.settings import Settings, load_settings
from tests.infra.wrong import NOW, PLATFORM, configuration

ELSEWHERE = "apply: gitops, gitops: {repository: 'https://git.example.org:8443/cluster'}"
OF_FORGE = "apply: gitops, forge: {}"
LABEL = gitops.CAPABILITY


def settings(platform: str) -> Settings:
    return load_settings(configuration(f"{{{PLATFORM}: {{{platform}}}}}"), now=NOW, stack="lab")


def read(path: str) -> list[Manifest]:
    return [one for one in kubeyaml.read_documents((TREE / gitops.FOLDER / path).read_text()) if one]


def namespace(name: str, level: str = "restricted") -> Manifest:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": {gitops.LEVEL: level}}}


def one(kind: str, where: str, name: str = "it", capability: str = "") -> Manifest:
    return {"kind": kind, "metadata": {"name": name, "namespace": where, "labels": {LABEL: capability}}}


PROFILE = [
    namespace("gateway"),
    namespace("platform"),
    namespace("nodes", "privileged"),
    {"kind": "ClusterRole", "metadata": {"name": "it"}},
    one("RoleBinding", "platform"),
    one("ResourceQuota", "platform"),
    one("Deployment", "gateway"),
    one("DaemonSet", "nodes"),
    one("StatefulSet", "platform", "store", "metadata-store"),
    {
        **one("Deployment", "platform", "tracking", "tracking"),
        "spec": {"image": f"localhost/mlflow@sha256:{'0' * 64}"},
    },
]
BY_CONTROLLER = {"Deployment platform/tracking"}
STORE = "StatefulSet platform/store"


def names(manifests: list[Manifest]) -> set[str]:
    return {
        f"{one['kind']} {'/'.join(filter(None, (one['metadata'].get('namespace'), one['metadata']['name'])))}"
        for one in manifests
    }


@pytest.mark.parametrize("platform", ["", "forge: {}", "apply: gitops, gitops: {controller: none}"])
def test_without_the_setting_there_is_no_controller(platform: str) -> None:
    assert not gitops.wanted(settings(platform))
    assert gitops.passwords(settings(platform)) == []
    assert gitops.forge_users(settings(platform), {}) == {}


@pytest.mark.parametrize(("platform", "applied"), [(ELSEWHERE, {*BY_CONTROLLER, STORE}), (OF_FORGE, BY_CONTROLLER)])
def test_the_stack_keeps_rights_limits_the_gateway_and_what_the_forge_needs(platform: str, applied: set[str]) -> None:
    division = gitops.Division(PROFILE, settings(platform))
    assert names(PROFILE) - names(division.kept) == applied
    assert division.applied == ["platform"]


def test_the_controller_renders_the_bundles_images_and_what_the_stack_says_of_alerts() -> None:
    division = gitops.Division(PROFILE, settings(ELSEWHERE))
    digests = {"mlflow": f"sha256:{'1' * 64}", "gateway": f"sha256:{'2' * 64}"}
    told = division.kustomization(digests, "abc")
    assert told["resources"] == ["../clusters/lab"]
    assert told["images"] == [{"name": "localhost/mlflow", "digest": digests["mlflow"]}]
    assert '"ml-cluster.dev/receivers": "abc"' in json.dumps([json.loads(one["patch"]) for one in told["patches"]])
    assert "receivers" not in json.dumps(division.kustomization(digests, None))


@pytest.mark.parametrize(("platform", "to_forge", "port"), [(ELSEWHERE, False, 8443), (OF_FORGE, True, 3000)])
def test_the_repositorys_server_reaches_git_where_it_is_and_nowhere_else(
    platform: str, to_forge: bool, port: int
) -> None:
    made = gitops.adapted(read("server/network.yaml"), settings(platform), ["platform"])
    (policy,) = (one for one in made if one["metadata"]["name"] == "repository")
    cache, git = policy["spec"]["egress"]
    assert cache["to"] == [{"podSelector": {"matchLabels": {"app": "cache"}}}]
    assert git["ports"] == [{"port": port, "protocol": "TCP"}]
    assert ("ipBlock" in git["to"][0]) is not to_forge


def test_the_controller_has_its_rights_in_the_namespaces_that_it_applies_to() -> None:
    rights = read("rights.yaml")
    made = gitops.adapted(rights, settings(ELSEWHERE), ["platform", "serving"])
    bound = [one["metadata"]["namespace"] for one in made if one["metadata"]["name"] == "gitops"]
    assert bound == ["platform", "serving"]
    assert not [one for one in made if one["kind"] == "ClusterRoleBinding"]


def test_rights_kinds_that_are_watched_and_kinds_that_are_applied_are_the_same() -> None:
    (role,) = (one for one in read("rights.yaml") if one["kind"] == "ClusterRole")
    plurals = {
        f"{kind.lower()}{'' if kind.endswith('s') else 's'}".replace("policys", "policies"): group
        for group, kinds in gitops.APPLIED.items()
        for kind in kinds
    }
    allowed = {resource: rule["apiGroups"][0] for rule in role["rules"] for resource in rule["resources"]}
    assert allowed == plurals
    (settings_map,) = read("settings/settings.yaml")
    watched: list[dict[str, Any]] = next(iter(kubeyaml.read_documents(settings_map["data"]["resource.inclusions"])))
    assert {one["apiGroups"][0]: tuple(one["kinds"]) for one in watched} == gitops.APPLIED


def test_no_right_reads_a_secret_gives_a_right_or_deletes_data() -> None:
    (role,) = (one for one in read("rights.yaml") if one["kind"] == "ClusterRole")
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert not {"secrets", "roles", "rolebindings", "pods", "namespaces"} & verbs.keys()
    assert "delete" not in verbs["persistentvolumeclaims"]
    assert not [verb for granted in verbs.values() for verb in granted if verb in {"*", "escalate", "bind"}]


def test_the_project_allows_what_the_controller_has_rights_for() -> None:
    project, application = gitops.objects(settings(ELSEWHERE), "lab.example.org", "{}", ["platform"])  # type: ignore[arg-type]
    assert project["spec"]["destinations"] == [{"server": "https://kubernetes.default.svc", "namespace": "platform"}]
    assert "clusterResourceWhitelist" not in project["spec"]
    assert project["spec"]["sourceRepos"] == [application["spec"]["source"]["repoURL"]]
    assert "finalizers" not in application["metadata"]
