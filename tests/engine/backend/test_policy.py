"""Keys with the policy of one stack, on a real object store that enforces it."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3  # type: ignore[import-untyped]
import pytest

from engine.backend import Backend, open_backend, s3
from engine.backend.bucket import DeniedError
from engine.backend.policy import policy
from engine.errors import EngineError
from tests.cli.harness import Lab
from tests.engine.backend.test_backend import BASE, STACK, begin, bucket_of, deployment, entry, keys, record
from tests.weed import object_store_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# "dev.2" begins as "dev" does.
OTHERS = ("dev.2", "dev2", "prod")


class Store(NamedTuple):
    """A backend as its owner sees it, and who makes users."""

    url: str
    owner: Backend
    iam: Any

    def keys_of(self, user: str, document: dict[str, Any]) -> dict[str, str]:
        """The environment of a new user's keys."""
        self.iam.create_user(UserName=user)
        self.iam.put_user_policy(UserName=user, PolicyName="state", PolicyDocument=json.dumps(document))
        made = self.iam.create_access_key(UserName=user)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A backend with four stacks, each with a finished update, an interrupted one, and a plan."""
    folder = tmp_path_factory.mktemp("store")
    administrator = {"name": "admin", "credentials": [{"accessKey": "test", "secretKey": "test"}], "actions": ["Admin"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [administrator]}))
    (folder / "data").mkdir()
    with object_store_in(folder / "data", f"-s3.config={config}", "-s3.iam.readOnly=false") as endpoint:
        url = f"s3://state/team?endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true"
        owner = open_backend(url)
        for stack in ("dev", *OTHERS):
            owner.create_stack("sample", stack)
            with owner.lock("sample", stack, "up"):
                begin(owner, stack).finish(deployment(STACK), result="succeeded", changes={})
                with begin(owner, stack) as interrupted:
                    interrupted.append(BASE).result()
            owner.plans.save("sample", stack, "7", b"{}")
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        yield Store(url, owner, boto3.client("iam", endpoint_url=f"http://{endpoint}", **keys))


def as_user(store: Store, monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> Backend:
    for variable, value in store.keys_of(name, policy(store.url, "sample", ["dev"], **options)).items():
        monkeypatch.setenv(variable, value)
    # A session keeps the keys that it began with.
    monkeypatch.setattr(s3, "_session", functools.cache(s3._session.__wrapped__))
    return open_backend(store.url)


def test_keys_of_a_stack_update_it_and_reach_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: bucket_of(store.owner).read(key) for key in keys(store.owner) if "/dev/" not in key}
    job = as_user(store, monkeypatch, "job")
    with job.lock("sample", "dev", "up"), begin(job) as update:
        for line in (BASE, entry(1)):
            update.append(line).result()
        update.finish(deployment(STACK, record(1)), result="succeeded", changes={"create": 1})
    assert [one["urn"] for one in job.load("sample", "dev")["deployment"]["resources"]][1:] == [record(1)["urn"]]
    assert len(job.history("sample", "dev")) == 2
    job.plans.save("sample", "dev", "8", b"{}")

    assert {one.name: one.resource_count for one in job.list_stacks()} == {"dev": 2, **dict.fromkeys(OTHERS)}
    for stack in OTHERS:
        for refused in (job.load, job.history):
            with pytest.raises(DeniedError, match=stack):
                refused("sample", stack)
        with pytest.raises(DeniedError, match=stack), job.lock("sample", stack, "up"):
            pass
        with pytest.raises(DeniedError, match=stack):
            job.plans.load("sample", stack, "7")
    # Whatever there is of other stacks: not read, not written, not deleted.
    foreign = [key for key in before if any(f"/{stack}{end}" in key for stack in OTHERS for end in ("/", ".j"))]
    assert {key.split("/")[1] for key in foreign} == {"stacks", "history", "backups", "plans"}
    for key in foreign:
        for attempt in (bucket_of(job).read, bucket_of(job).delete, lambda key: bucket_of(job).write(key, b"")):
            with pytest.raises(DeniedError):
                attempt(key)
    assert all(bucket_of(store.owner).read(key) == before[key] for key in foreign)


def test_keys_to_preview_change_nothing_but_plans(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reviewer = as_user(store, monkeypatch, "reviewer", read_only=True)
    reviewer.load("sample", "dev")
    reviewer.plans.save("sample", "dev", "9", b"{}")
    assert reviewer.plans.load("sample", "dev", "9") == b"{}"
    reviewer.plans.delete("sample", "dev", "9")
    with pytest.raises(DeniedError, match="written"), reviewer.lock("sample", "dev", "up"):
        pass


def test_a_job_with_such_keys_deploys_its_stack_alone(store: Store, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.write("pulumi.export('answer', 42)\n")
    owned = {"PULUMI_BACKEND_URL": store.url.replace("/team?", "/job?"), "PULUMI_CONFIG_PASSPHRASE": "p"}
    for stack in ("prod", "dev"):
        lab.run("stack", "init", stack, env=owned)
    document = lab.run("state", "policy", "--include", "pr-*", env=owned).json
    as_job = {**owned, **store.keys_of("deployer", document)}
    lab.run("up", "--yes", env=as_job)
    assert lab.run("stack", "output", "answer", env=as_job).stdout.strip() == "42"
    lab.run("stack", "init", "pr-7", env=as_job)
    listed = {one["name"]: one.get("resourceCount") for one in lab.run("stack", "ls", "--json", env=as_job).json}
    assert listed == {"dev": 1, "pr-7": 0, "prod": None}
    lab.refuse("--stack", "prod", "state", "export", env=as_job, status=1, saying="prod.json' cannot be read: Access")


def test_a_folder_has_no_policy() -> None:
    with pytest.raises(EngineError, match="no S3 bucket"):
        policy("file:///srv/state", "sample", ["dev"])
