"""Changes by pull request on a real cluster: the forge in the box, a runner beside the bundle, the GitOps controller.

The tests build on one another. Needs the families forge, forge-runner, gitops and redis in the bundle, and a package
index. Costs about 40 minutes on idle cores, 9 GiB of memory beside the cloud's: each deployment and each check of the
repository is waited for.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cli.gitops import Application, applications
from tests.e2e.delivery import PEOPLE, Delivery, delivered, wait
from tests.e2e.harness import with_settings
from tests.e2e.test_platform_faults import comes_back, kill_program
from tests.forge.box import REPOSITORY
from tests.forge.pulls import comments, merge, propose, revert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.harness import Cloud

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(7200)]
STACK = "e2e-delivery"
OVERVIEW = "k8s/platform/landing/base/server.yaml"
TRACKING = "k8s/platform/tracking/base/server.yaml"
KINDS = "deployments,statefulsets,daemonsets,services,persistentvolumeclaims,serviceaccounts,networkpolicies"
NAMESPACES = ("platform", "training", "serving")


@pytest.fixture(scope="module")
def delivery(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    """A stack with one worker, a forge and a controller, as `lab up` makes it of a clone; its runner runs."""
    settings = {"profile": "ci", "apply": "gitops"}
    with delivered(cloud, tmp_path_factory.mktemp(STACK), STACK, settings, workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def clone(delivery: Delivery) -> Path:
    """A user's clone."""
    return delivery.forge.clone(delivery.folder / "ada")


class Kept(NamedTuple):
    """An object of the platform."""

    kind: str
    name: str
    uid: str


def objects(delivery: Delivery) -> set[Kept]:
    """What must not be deleted by anything here, with what tells that it is still the same."""
    found: set[Kept] = set()
    for namespace in NAMESPACES:
        text = delivery.stack.kubectl("get", KINDS, f"--namespace={namespace}", "--output=json").stdout
        for one in json.loads(text)["items"]:
            found.add(Kept(one["kind"], f"{namespace}/{one['metadata']['name']}", one["metadata"]["uid"]))
    return found


def short(name: str) -> str:
    """A node's name without its stack's."""
    return name.removeprefix(f"{STACK}-")


def ready(delivery: Delivery) -> set[str]:
    """Names of the nodes that are Ready."""
    return {
        short(node["metadata"]["name"])
        for node in json.loads(delivery.stack.kubectl("get", "nodes", "--output=json").stdout)["items"]
        if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    }


def application(delivery: Delivery) -> Application:
    """The platform, as the controller tells of it."""
    (found,) = applications(delivery.stack.platform.cluster)
    return found


def is_synced(delivery: Delivery, commit: str) -> bool:
    """Whether the platform is as a commit has it, and healthy."""
    found = application(delivery)
    return found.is_done and found.revision == commit


def operation(delivery: Delivery) -> tuple[str, str]:
    """What the controller is at, and for which commit."""
    text = delivery.stack.kubectl("get", "application", "platform", "--namespace=gitops", "--output=json").stdout
    state: dict[str, Any] = json.loads(text)["status"].get("operationState") or {}
    return str(state.get("phase")), str((state.get("syncResult") or {}).get("revision"))


def overview(delivery: Delivery) -> Any:
    """What the overview shows, as JSON."""
    return delivery.stack.platform.ask("", "GET", "/health.json")


def memory_limit(delivery: Delivery, deployment: str) -> str:
    """Of the last container of a Deployment of the platform, as it runs."""
    text = delivery.stack.kubectl("get", "deployment", deployment, "--namespace=platform", "--output=json").stdout
    limit: str = json.loads(text)["spec"]["template"]["spec"]["containers"][-1]["resources"]["limits"]["memory"]
    return limit


def with_limit(clone: Path, path: str, old: str, new: str) -> dict[str, str]:
    """A manifest of the forge's `main` with another memory limit, where it has it last."""
    before, found, after = (clone / path).read_text().rpartition(f"limits: {{memory: {old}}}")
    assert found
    return {path: f"{before}limits: {{memory: {new}}}{after}"}


def take_main(delivery: Delivery, clone: Path) -> None:
    """Have the files of the forge's `main`."""
    for words in (["fetch", "--quiet", "origin"], ["switch", "--quiet", "--detach", "origin/main"]):
        assert delivery.forge.git(clone, *words, user="ada").returncode == 0


def visible(markdown: str) -> list[str]:
    """What a comment shows at once, in an order that does not depend on who was first."""
    return sorted(line for line in markdown.partition("<details>")[0].splitlines() if line)


def test_one_more_worker_by_pull_request(
    delivery: Delivery, clone: Path, record_property: Callable[[str, object], None]
) -> None:
    before = objects(delivery)
    assert ready(delivery) == {"control-0", "worker-0"}
    settings = delivery.lab.settings
    wanted = with_settings((clone / settings).read_text(), nodes__groups__worker__count=2)
    began = time.monotonic()
    number = propose(delivery.forge, clone, "one-more-worker", {settings: wanted})
    wait(partial(comments, delivery.forge, number), "the comment")
    commented = time.monotonic() - began

    # Nobody merges what is not checked, or not approved.
    assert {merge(delivery.forge, number, user) for user in (*PEOPLE, "admin")} == {405}
    delivery.until(number, check="success", preview="success")
    (text,) = comments(delivery.forge, number)
    assert {merge(delivery.forge, number, user) for user in (*PEOPLE, "admin")} == {405}

    # It says what `lab preview` says beside the same settings, and what is meant.
    here = delivery.folder / "preview.md"
    delivery.lab.beside(clone).run("preview", "--markdown", str(here))
    shown, said = visible(text), visible(here.read_text())
    assert set(said) <= set(shown), (said, shown)
    assert f"### Preview of stack `{STACK}`: " in text
    assert "Destructive" not in text
    assert "`worker-1`" in text
    assert "to delete" not in text
    assert "to replace" not in text

    began = time.monotonic()
    commit = delivery.merge(number)
    wait(lambda: "worker-1" in ready(delivery), "the node is Ready")
    joined = time.monotonic() - began
    delivery.deployed(commit)
    deployed = time.monotonic() - began
    assert ready(delivery) == {"control-0", "worker-0", "worker-1"}
    assert "worker-1-member" in delivery.lab.run("status").stdout
    assert f"(#{number})" in delivery.lab.run("history", "--page-size", "1").stdout
    wait(
        lambda: (
            {short(one["name"]) for one in overview(delivery)["nodes"] or () if one["state"] == "ready"}
            == ready(delivery)
        ),
        "the overview shows the node",
    )
    wait(lambda: overview(delivery)["state"] == "ready", "the overview shows that all is ready")
    assert before <= objects(delivery)
    record_property("figures", f"delivery: one more worker: {commented:.0f} s from the push to the comment, "
                    f"{joined:.0f} s from the merge to the node Ready, {deployed:.0f} s to its end")  # fmt: skip


def test_a_change_of_the_platform_and_its_revert(
    delivery: Delivery, clone: Path, record_property: Callable[[str, object], None]
) -> None:
    before = objects(delivery)
    take_main(delivery, clone)
    changed = with_limit(clone, OVERVIEW, "128Mi", "144Mi")
    assert memory_limit(delivery, "landing") == "128Mi"
    for name, limit in {"more-memory": "144Mi", "less-memory": "128Mi"}.items():
        began = time.monotonic()
        if name == "more-memory":
            number = propose(delivery.forge, clone, name, changed)
        else:
            number = revert(delivery.forge, clone, name)
        wait(partial(comments, delivery.forge, number), "the comment")
        commented = time.monotonic() - began
        delivery.until(number, check="success", preview="success")
        # What the controller applies is none of the stack's resources.
        (text,) = comments(delivery.forge, number)
        assert f"### Preview of stack `{STACK}`: no changes" in text
        began = time.monotonic()
        commit = delivery.merge(number)
        wait(partial(is_synced, delivery, commit), f"{name}: the platform is as {commit} has it")
        synced = time.monotonic() - began
        assert memory_limit(delivery, "landing") == limit
        delivery.deployed(commit)
        status = delivery.lab.run("status").stdout
        assert commit[:12] in status.partition("Applied from Git:")[2]
        wait(lambda commit=commit: [one["revision"] for one in overview(delivery)["applications"] or ()]  # type: ignore[misc]
             == [commit[:12]], "the overview shows the commit")  # fmt: skip
        record_property("figures", f"delivery: {name}: {commented:.0f} s from the push to the comment, {synced:.0f} s "
                        "from the merge to all as in Git and healthy")  # fmt: skip
    assert before <= objects(delivery)


def kill_controller(delivery: Delivery) -> None:
    delivery.stack.kubectl("delete", "pod", "--namespace=gitops", "--selector=app=controller", "--now")


def kill_forge(delivery: Delivery) -> None:
    delivery.stack.kubectl("delete", "pod", "--namespace=platform", "forge-0", "--now")


def kill_rows(delivery: Delivery) -> None:
    kill_program(delivery.stack, "metadata-store-0", "postgres")


def cut_network(delivery: Delivery) -> None:
    """Until the controller says so; then the way is open again."""
    where = ("networkpolicy", "repository", "--namespace=gitops")
    before = json.loads(delivery.stack.kubectl("get", *where, "--output=json").stdout)["spec"]
    closed = [one for one in before["egress"] if "3000" not in json.dumps(one["ports"])]
    assert closed != before["egress"]
    delivery.stack.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps({'spec': {'egress': closed}})}")
    try:
        delivery.stack.kubectl("delete", "pod", "--namespace=gitops", "--selector=app=repository", "--now")
        hard = ("application/platform", "argocd.argoproj.io/refresh=hard", "--overwrite", "--namespace=gitops")
        delivery.stack.kubectl("annotate", *hard)
        wait(lambda: application(delivery).errors, "the controller misses Git")
    finally:
        delivery.stack.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps({'spec': before})}")


@pytest.mark.parametrize("fault", [kill_controller, kill_forge, kill_rows, cut_network])
def test_a_sync_goes_on_by_itself(
    delivery: Delivery, clone: Path, fault: Callable[[Delivery], None],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """In the middle of it: the tracking server is started anew with other limits, and later waves wait for it."""
    before = objects(delivery)
    take_main(delivery, clone)
    old = memory_limit(delivery, "tracking")
    new = "1056Mi" if old == "1Gi" else "1Gi"
    branch = f"while-{fault.__name__.replace('_', '-')}"
    number = propose(delivery.forge, clone, branch, with_limit(clone, TRACKING, old, new))
    delivery.until(number, check="success", preview="success")
    commit = delivery.merge(number)
    wait(lambda: operation(delivery) == ("Running", commit), "the sync is in the middle")
    began = time.monotonic()
    fault(delivery)
    wait(partial(is_synced, delivery, commit), f"the platform is as {commit} has it")
    synced = time.monotonic() - began
    assert memory_limit(delivery, "tracking") == new
    comes_back(delivery.stack)
    assert before <= objects(delivery)
    # The forge has all that it had, and the job that waited for the sync has ended well.
    assert delivery.forge.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["merged"]
    delivery.deployed(commit)
    record_property("figures", f"delivery: {fault.__name__} in the middle of a sync: all as in Git and healthy "
                    f"{synced:.0f} s later")  # fmt: skip
