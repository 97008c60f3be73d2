"""What a running platform refuses: each test is an intruder, with a control that shows that the way in is there.

Costs about 5 minutes on idle cores, beside what the platform costs (tests/e2e/conftest.py). All profiles are validated
by a server's dry run, and applied by kubectl alone, in tests/k8s: that needs no nodes.
"""

from __future__ import annotations

import base64
import json
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import urllib3
import yaml

from cli.workloads import NAMESPACES, PLATFORM, SERVING, TRAINING
from infra.manifests import PORT, REDIRECT_PORT
from providers.kubernetes.client import Cluster, ClusterError
from tests.devcloud.support import wait
from tests.e2e.outside import Outside, provide_clients
from tests.k8s.conftest import FOLDERS, RUNS, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
MODEL = "digits"
RULES_SECONDS = 60
"""How long a pod's network rules may take to be there: they follow from its address."""


@pytest.fixture(scope="module")
def image(platform: PlatformStack) -> str:
    """The image of a pod that runs, which has Python."""
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    return platform.kubectl("get", "deployment", "landing", "-n", PLATFORM, "-o", path).stdout


def secret(platform: PlatformStack, id_: str) -> dict[str, str]:
    """What a Secret holds."""
    namespace, _, name = id_.partition("/")
    data = json.loads(platform.kubectl("get", "secret", name, "-n", namespace, "-o", "json").stdout)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def pod(name: str, image: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that waits, and that pod security takes unless `spec` says otherwise."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", "import signal; signal.pause()"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    whole: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}}, "spec": whole | spec}


# Networks


class Visitor(NamedTuple):
    """A pod, and all of the targets that it may reach."""

    namespace: str
    labels: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()


ALL_LABELS = ("reaches-metadata-store", "reaches-artifacts", "reaches-tracking")
VISITORS = {
    "trainer": Visitor(TRAINING, ("reaches-tracking", "reaches-artifacts"), ("artifacts", "tracking")),
    "training": Visitor(TRAINING),
    "training-forged": Visitor(TRAINING, ("reaches-metadata-store", "reaches-api")),
    "model": Visitor(SERVING, ("reaches-tracking",), ("tracking",)),
    "serving": Visitor(SERVING),
    "serving-forged": Visitor(SERVING, ("reaches-metadata-store", "reaches-artifacts")),
    "gateway-forged": Visitor("gateway", ALL_LABELS),
    "tracking": Visitor(PLATFORM, ("reaches-metadata-store", "reaches-artifacts"), ("metadata-store", "artifacts")),
    "platform": Visitor(PLATFORM),
    # Nothing keeps a pod of another namespace from asking: what is asked refuses.
    "elsewhere": Visitor("default", ALL_LABELS, ("api",)),
}
TARGETS = {
    "metadata-store": "metadata-store.platform:5432",
    "artifacts": "artifacts.platform:8333",
    "tracking": "tracking.platform:5000",
    "api": "kubernetes.default:443",
}
# Of the object store's own parts, which ask for no password. They have no Service: by the pod's address.
INNER_PORTS = {"master": 9333, "filer": 8888, "volume": 8080, "filer-rpc": 18888}
PROBE = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def reaches(target):
    host, _, port = target.rpartition(":")
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return "unresolved"
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
    except OSError:
        return "closed"
    return "open"

with ThreadPoolExecutor(16) as pool:
    print(*pool.map(reaches, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def visitors(platform: PlatformStack, image: str) -> Iterator[dict[str, str]]:
    """The pods of VISITORS, running; the names of their kind."""
    suffix = uuid.uuid4().hex[:6]
    names = {name: f"visitor-{name}-{suffix}" for name in VISITORS}
    try:
        for name, visitor in VISITORS.items():
            labels = {f"ml-cluster.dev/{label}": "true" for label in visitor.labels}
            manifest = json.dumps(pod(names[name], image, labels))
            platform.kubectl("create", "-n", visitor.namespace, "-f", "-", text=manifest)
        for name, visitor in VISITORS.items():
            ready = ("--for=condition=Ready", "--timeout=300s", f"pod/{names[name]}")
            platform.kubectl("wait", "-n", visitor.namespace, *ready)
        yield names
    finally:
        for name, visitor in VISITORS.items():
            gone = ("--ignore-not-found", "--wait=false", f"pod/{names[name]}")
            platform.kubectl("delete", "-n", visitor.namespace, *gone)


@pytest.mark.parametrize("name", VISITORS)
def test_a_pod_reaches_what_it_is_meant_to_and_nothing_else(
    platform: PlatformStack, visitors: dict[str, str], name: str
) -> None:
    path = "jsonpath={.status.podIP}"
    store = platform.kubectl("get", "pod", "artifacts-0", "-n", PLATFORM, "-o", path).stdout
    targets = TARGETS | {part: f"{store}:{port}" for part, port in INNER_PORTS.items()}
    visitor = VISITORS[name]
    expected = {target: "open" if target in visitor.reaches else "closed" for target in targets}

    def reached() -> dict[str, str]:
        command = ("python3", "-c", PROBE, *targets.values())
        output = platform.kubectl("exec", "-n", visitor.namespace, visitors[name], "--", *command).stdout
        return dict(zip(targets, output.split(), strict=True))

    with suppress(AssertionError):
        wait(lambda: reached() == expected, RULES_SECONDS)
    assert reached() == expected


def test_from_outside_there_is_the_gateway_and_no_store(platform: PlatformStack) -> None:
    """The ports of all that a node has, at the address that the platform is reached by."""

    def is_open(port: int) -> bool:
        try:
            socket.create_connection((platform.platform.address, port), timeout=3).close()
        except OSError:
            return False
        return True

    ports = (PORT, REDIRECT_PORT, 2379, 5000, 5432, 8080, 8333, 8888, 9333, 10250, 10257, 10259)
    with ThreadPoolExecutor(len(ports)) as pool:
        found = dict(zip(ports, pool.map(is_open, ports), strict=True))
    assert [port for port in ports if found[port]] == [PORT, REDIRECT_PORT]


# MLflow


class Tracking:
    """MLflow through the gateway, as one of its users, or as nobody."""

    def __init__(self, platform: PlatformStack, user: str = "", password: str = "") -> None:
        self._pool = platform.platform.connect("tracking")
        self._headers = dict(self._pool.headers or {})
        if user:
            self._headers |= urllib3.make_headers(basic_auth=f"{user}:{password}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and answer."""
        headers = {**self._headers, "Content-Type": "application/json"}
        answer = self._pool.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        with suppress(ValueError):
            return answer.status, json.loads(answer.data)
        return answer.status, answer.data.decode(errors="replace")

    def api(self, call: str, body: object = None, method: str = "POST") -> tuple[int, Any]:
        """The same, of MLflow's REST API."""
        return self.ask(method, f"/api/2.0/mlflow/{call}", body)


@pytest.fixture(scope="module")
def users(platform: PlatformStack) -> dict[str, Tracking]:
    """MLflow's users, with their passwords."""
    admin = platform.platform.credentials["tracking"]
    others = [secret(platform, f"{namespace}/tracking") for namespace in (TRAINING, SERVING)]
    return {one["username"]: Tracking(platform, one["username"], one["password"]) for one in (admin, *others)}


PAGES = (
    ("GET", "/"),
    ("GET", "/api/2.0/mlflow/registered-models/search"),
    ("POST", "/api/2.0/mlflow/experiments/search"),
    ("GET", "/ajax-api/2.0/mlflow/registered-models/search"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("GET", "/api/2.0/mlflow/users/list"),
    ("POST", "/graphql"),
    ("GET", "/metrics"),
)


@pytest.mark.parametrize(("method", "path"), PAGES)
def test_mlflow_answers_nobody_without_a_password(platform: PlatformStack, method: str, path: str) -> None:
    passwords = {"": "", "admin": "password1234", "nobody": "password1234"}
    passwords["server"] = secret(platform, f"{TRAINING}/tracking")["password"]  # another's
    for user, password in passwords.items():
        status, output = Tracking(platform, user, password).ask(method, path, {} if method == "POST" else None)
        assert status == 401, (user, output)


def test_mlflow_is_alive_for_everyone(platform: PlatformStack) -> None:
    assert Tracking(platform).ask("GET", "/health") == (200, "OK")


@pytest.fixture
def theirs(users: dict[str, Tracking]) -> Iterator[dict[str, str]]:
    """An experiment of the administrator with a run."""
    admin = users["admin"]
    status, made = admin.api("experiments/create", {"name": f"security-{uuid.uuid4().hex[:8]}"})
    assert status == 200, made
    status, run = admin.api("runs/create", {"experiment_id": made["experiment_id"]})
    assert status == 200, run
    yield {"experiment_id": made["experiment_id"], "run_id": run["run"]["info"]["run_id"]}
    assert admin.api("experiments/delete", {"experiment_id": made["experiment_id"]})[0] == 200


def refused(user: Tracking, calls: list[tuple[str, str, dict[str, str]]]) -> None:
    for method, call, body in calls:
        status, output = user.api(call, body, method)
        assert status == 403, (call, status, output)


def of_others(theirs: dict[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """What nobody but their owner and the administrator may do, and what the administrator alone may."""
    experiment, run = {"experiment_id": theirs["experiment_id"]}, {"run_id": theirs["run_id"]}
    return [
        ("POST", "experiments/update", {**experiment, "new_name": "taken"}),
        ("POST", "experiments/delete", experiment),
        ("POST", "runs/create", experiment),
        ("POST", "runs/set-tag", {**run, "key": "taken", "value": "yes"}),
        ("POST", "runs/log-parameter", {**run, "key": "taken", "value": "yes"}),
        ("POST", "runs/delete", run),
        ("POST", "users/create", {"username": f"intruder-{uuid.uuid4().hex[:8]}", "password": uuid.uuid4().hex}),
        ("PATCH", "users/update-password", {"username": "admin", "password": uuid.uuid4().hex}),
        ("PATCH", "users/update-admin", {"username": "trainer", "is_admin": "true"}),
        ("DELETE", "users/delete", {"username": "server"}),
    ]


def test_the_trainer_may_log_and_touches_nothing_of_others(users: dict[str, Tracking], theirs: dict[str, str]) -> None:
    trainer = users["trainer"]
    refused(trainer, of_others(theirs))
    status, own = trainer.api("experiments/create", {"name": f"security-{uuid.uuid4().hex[:8]}"})
    assert status == 200, own
    status, run = trainer.api("runs/create", {"experiment_id": own["experiment_id"]})
    assert status == 200, run
    tag = {"run_id": run["run"]["info"]["run_id"], "key": "own", "value": "yes"}
    assert trainer.api("runs/set-tag", tag)[0] == 200
    assert trainer.api("experiments/delete", {"experiment_id": own["experiment_id"]})[0] == 200


def test_model_servers_may_read_and_touch_nothing(users: dict[str, Tracking], theirs: dict[str, str]) -> None:
    server = users["server"]
    alias = {"name": MODEL, "alias": "production"}
    status, found = server.api(f"registered-models/alias?name={MODEL}&alias=production", method="GET")
    assert status == 200, found
    version = {"name": MODEL, "version": found["model_version"]["version"]}
    run = {"run_id": found["model_version"]["run_id"]}
    refused(
        server,
        [
            *of_others(theirs),
            ("POST", "registered-models/alias", {**alias, **version}),
            ("DELETE", "registered-models/alias", alias),
            ("DELETE", "model-versions/delete", version),
            ("POST", "model-versions/set-tag", {**version, "key": "gate", "value": "passed"}),
            ("DELETE", "registered-models/delete", {"name": MODEL}),
            ("POST", "runs/set-tag", {**run, "key": "gate", "value": "passed"}),
        ],
    )
    status, after = server.api(f"registered-models/alias?name={MODEL}&alias=production", method="GET")
    assert (status, after) == (200, found)


# S3


@pytest.fixture(scope="module")
def outside(platform: PlatformStack, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    provide_clients()
    return Outside(platform.platform, tmp_path_factory.mktemp("outside"))


def test_s3_knows_its_keys_and_the_trainers_key_one_bucket(platform: PlatformStack, outside: Outside) -> None:
    admin = platform.platform.credentials["artifacts"]
    trainer = secret(platform, f"{TRAINING}/artifacts")
    key = f"security-{uuid.uuid4().hex[:8]}"
    users = {
        "admin": [admin["accessKey"], admin["secretKey"]],
        "trainer": [trainer["access-key"], trainer["secret-key"]],
        "nobody": [],
        "wrong": ["admin", "0" * 32],
        "unknown": [key, "0" * 32],
        "mixed": ["admin", trainer["secret-key"]],
    }

    def uses(user: str, bucket: str) -> list[tuple[str, str, dict[str, Any]]]:
        one = {"Bucket": bucket, "Key": key}
        return [
            (user, "list_objects_v2", {"Bucket": bucket}),
            (user, "put_object", {**one, "Body": "text"}),
            (user, "get_object", one),
            (user, "delete_object", one),
        ]

    def owns(user: str) -> list[tuple[str, str, dict[str, Any]]]:
        everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::datasets/*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everyone]})
        return [
            (user, "create_bucket", {"Bucket": key}),
            (user, "put_bucket_policy", {"Bucket": "datasets", "Policy": policy}),
            (user, "delete_bucket", {"Bucket": "datasets"}),
        ]

    allowed = [*uses("admin", "mlflow"), *uses("admin", "datasets"), *uses("trainer", "datasets")]
    strangers = ("nobody", "wrong", "unknown", "mixed")
    denied = [*uses("trainer", "mlflow"), *owns("trainer"), *owns("admin")]
    for user in strangers:
        denied += [*uses(user, "mlflow"), *uses(user, "datasets"), *owns(user), (user, "list_buckets", {})]
    attempts = [*allowed, *denied, ("admin", "list_buckets", {}), ("trainer", "list_buckets", {})]
    environment = {"AWS_ENDPOINT_URL": platform.platform.url("artifacts"), "AWS_DEFAULT_REGION": "us-east-1"}
    asked = json.dumps({"users": users, "attempts": attempts})
    answers = json.loads(outside.python("s3_attempts.py", text=asked, environment=environment))
    # Without the arguments, and so without what may be a key.
    statuses = [(user, operation, status) for (user, operation, _), (status, _) in zip(attempts, answers, strict=True)]
    assert statuses[: len(allowed)] == [(user, operation, 200) for user, operation, _ in allowed]
    assert statuses[len(allowed) : -2] == [(user, operation, 403) for user, operation, _ in denied]
    (_, all_of_them), (_, trainers) = answers[-2:]
    assert {"mlflow", "datasets"} <= set(all_of_them)
    assert trainers == ["datasets"]


# The Kubernetes API

# The gateway's controller reads the Secrets of the namespaces that it routes to (infrastructure/gateway/base).
READS_SECRETS = {("gateway/gateway", namespace) for namespace in ("gateway", PLATFORM, SERVING)}
HAVE_TOKENS = {"gateway/gateway", "serving/rollout"}


def status_of(cluster: Cluster, method: str, path: str, body: object = None, **options: str) -> int:
    """How the API server answers."""
    try:
        cluster.request("asking", method, path, body, **options)
    except ClusterError as error:
        return error.code
    return 200


@pytest.fixture(scope="module")
def accounts(platform: PlatformStack) -> dict[str, Cluster]:
    """The API as each service account of the platform's namespaces, with a token of its own."""
    found = {}
    for namespace in NAMESPACES:
        for account in platform.platform.cluster.items("v1", "ServiceAccount", namespace):
            name = account["metadata"]["name"]
            token = platform.kubectl("create", "token", name, "-n", namespace, "--duration=10m").stdout.strip()
            found[f"{namespace}/{name}"] = with_token(platform, token)
    assert found.keys() >= HAVE_TOKENS | {"training/trainer", "serving/model", "platform/tracking"}
    return found


def with_token(platform: PlatformStack, token: str | None) -> Cluster:
    """The API as whoever has a token, or as nobody."""
    configuration = yaml.safe_load(platform.platform.kubeconfig)
    for user in configuration["users"]:
        user["user"] = {"token": token} if token else {}
    return Cluster({"kubeconfig": yaml.safe_dump(configuration)})


def test_the_api_answers_nobody(platform: PlatformStack) -> None:
    path = f"/api/v1/namespaces/{PLATFORM}/secrets"
    assert status_of(platform.platform.cluster, "GET", path) == 200
    for token in (None, "0" * 64):
        assert status_of(with_token(platform, token), "GET", path) == 401


def test_no_account_reads_secrets_or_makes_anything(platform: PlatformStack, accounts: dict[str, Cluster]) -> None:
    readers, makers = set(), set()
    for account, cluster in accounts.items():
        for namespace in (*NAMESPACES, "default", "kube-system"):
            path = f"/api/v1/namespaces/{namespace}"
            if status_of(cluster, "GET", f"{path}/secrets") == 200:
                readers.add((account, namespace))
            manifest = pod("intruder", "localhost/none")
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "intruder"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [],
            }
            bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
            for made, where in ((manifest, f"{path}/pods"), (binding, bindings)):
                if status_of(cluster, "POST", where, made, dryRun="All") != 403:
                    makers.add((account, where))
        if status_of(cluster, "GET", "/api/v1/secrets") == 200:
            readers.add((account, "all"))
    assert readers == READS_SECRETS
    assert makers == set()
    # The paths and the dry run are right: whoever may, can.
    admin, path = platform.platform.cluster, "/api/v1/namespaces/default/pods"
    assert status_of(admin, "POST", path, pod("intruder", "localhost/none"), dryRun="All") == 200


def test_the_rollout_controller_changes_models_alone(accounts: dict[str, Cluster]) -> None:
    """Another's token does not help: what serves may not be changed by what trains."""
    change = {"metadata": {"annotations": {"ml-cluster.dev/intruder": "yes"}}}
    options = {"dryRun": "All", "fieldManager": "test", "content_type": "application/merge-patch+json"}
    may = {
        (account, namespace)
        for account, cluster in accounts.items()
        for namespace, name in ((SERVING, f"{MODEL}-production"), (PLATFORM, "tracking"), ("gateway", "gateway"))
        if status_of(
            cluster, "PATCH", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}", change, **options
        ) != 403
    }  # fmt: skip
    assert may == {("serving/rollout", SERVING)}


def test_a_pod_has_a_token_only_if_it_asks_the_api(platform: PlatformStack) -> None:
    having, seen = set(), set()
    for namespace in NAMESPACES:
        for found in platform.platform.cluster.items("v1", "Pod", namespace):
            account = f"{namespace}/{found['spec']['serviceAccountName']}"
            seen.add(account)
            volumes = found["spec"].get("volumes", ())
            sources = [source for volume in volumes for source in volume.get("projected", {}).get("sources", ())]
            if any("serviceAccountToken" in source for source in sources):
                having.add(account)
    assert having == HAVE_TOKENS
    assert len(seen) > len(HAVE_TOKENS)


# Admission


def create(platform: PlatformStack, namespace: str, manifest: object) -> CompletedProcess[str]:
    dry = ("create", "--dry-run=server", "-n", namespace, "-f", "-")
    return platform.kubectl(*dry, text=json.dumps(manifest), check=False)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_privileged_pod_is_refused(platform: PlatformStack, image: str, namespace: str) -> None:
    taken = create(platform, namespace, pod("intruder", image))
    assert taken.returncode == 0, taken.stderr
    container = pod("intruder", image)["spec"]["containers"][0]
    privileged = {**container, "securityContext": {"privileged": True}}
    root = {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    for more in (
        {"containers": [privileged]},
        {"hostNetwork": True},
        {"hostPID": True},
        {"securityContext": root},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    ):
        done = create(platform, namespace, pod("intruder", image, **more))
        assert done.returncode != 0, more
        assert 'violates PodSecurity "restricted' in done.stderr


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_image_by_tag_is_refused(platform: PlatformStack, namespace: str) -> None:
    done = create(platform, namespace, pod("intruder", "localhost/model-server:v0.1.0"))
    assert done.returncode != 0
    assert "images without a digest: localhost/model-server:v0.1.0. Remedy: " in done.stderr


@pytest.mark.parametrize("folder", ["the profile", *RUNS])
def test_the_api_server_takes_the_manifests(platform: PlatformStack, folder: str) -> None:
    """With what is there already: the running profile, and what is applied by hand beside it."""
    path = str(tree() / (f"clusters/{platform.platform.profile}" if folder == "the profile" else folder))
    dry = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    assert not platform.kubectl("apply", *dry, "-k", path).stderr


# Secrets

PUBLIC = {"username", "access-key", "tls.crt"}
KINDS = "configmaps,services,deployments,statefulsets,jobs,cronjobs,pods,httproutes,gateways,events"


@pytest.fixture(scope="module")
def secrets(platform: PlatformStack) -> dict[str, str]:
    """All that is secret of the platform, by where it is kept."""
    found: dict[str, str] = {}
    for namespace in NAMESPACES:
        for one in platform.platform.cluster.items("v1", "Secret", namespace):
            for key, value in one["data"].items():
                text = base64.b64decode(value).decode()
                name = f"{namespace}/{one['metadata']['name']}/{key}"
                if key == "s3.json":
                    identities = json.loads(text)["identities"]
                    found |= {f"{name}/{user['name']}": user["credentials"][0]["secretKey"] for user in identities}
                elif key not in PUBLIC:
                    found[name] = text
    assert len(found) > 8
    assert min(map(len, found.values())) >= 32
    return found


def told_by(text: str, secrets: dict[str, str]) -> set[str]:
    """Which secrets a text has, by name: the values are not for a test's output."""
    forms = {name: (value, base64.b64encode(value.encode()).decode()) for name, value in secrets.items()}
    return {name for name, values in forms.items() if any(value in text for value in values)}


def test_no_secret_is_in_a_manifest(platform: PlatformStack, secrets: dict[str, str]) -> None:
    """Neither in those of the tree, nor in those that the cluster has."""
    for folder in (*FOLDERS, *RUNS):
        assert not told_by(platform.kubectl("kustomize", str(tree() / folder)).stdout, secrets), folder
    for namespace in NAMESPACES:
        live = platform.kubectl("get", KINDS, "-n", namespace, "-o", "yaml", "--show-managed-fields").stdout
        assert namespace in live
        assert not told_by(live, secrets), namespace
    kept = platform.kubectl("get", "secrets", "-n", PLATFORM, "-o", "yaml").stdout
    assert told_by(kept, secrets) >= {name for name in secrets if name.startswith(f"{PLATFORM}/tracking-users/")}


def test_no_secret_is_in_a_log(platform: PlatformStack, secrets: dict[str, str]) -> None:
    for namespace in NAMESPACES:
        for one in platform.platform.cluster.items("v1", "Pod", namespace):
            name = one["metadata"]["name"]
            output = platform.kubectl("logs", "-n", namespace, name, "--all-containers", check=False).stdout
            assert not told_by(output, secrets), f"{namespace}/{name}"
