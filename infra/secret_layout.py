"""The Secrets that the manifests of k8s/ name: their keys, and what each key holds. Does not import Pulumi.

`infra/platform.py` makes them as Pulumi secrets. `python -m infra.secret_layout` writes them into `k8s/secrets.sh`,
which makes them without Pulumi, and into `k8s/README.md`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent / "k8s"
MONITORING = "monitoring"
"""The capability, its namespace and its host name; a profile can be without it."""
PIPELINES = "pipelines"
"""The same of continuous training."""
FORGE_JOBS = "forge-jobs"
"""The namespace of the forge's jobs."""
METADATA_STORE = "platform/metadata-store"
"""The Secret with PostgreSQL's login."""
TRACKING_USERS = ("admin", "trainer", "server", "monitor", "promotion", "pipelines")

_USE = ("Read", "Write", "List", "Tagging")
S3_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "setup": ("Admin",),
    "admin": _USE,
    "platform": _USE,
    "trainer": (*(f"{action}:datasets" for action in _USE), "Read:code"),
    "code": ("Read:code", "Write:code", "List:code"),
    "pipelines": ("Read:datasets",),
    "features": ("Read:datasets/features/*", "Write:datasets/features/*"),
}
"""Actions that each access key of the object store may perform. `lab train` has the key `code`. Admin may create
buckets, and delete a versioned bucket with all its objects: only the key of the set-up has it, which is not given to
people."""


@dataclass(frozen=True)
class Text:
    """A key with the same text in every stack."""

    text: str


@dataclass(frozen=True)
class Generated:
    """A key with a generated password, by the password's name. Keys can share a password."""

    password: str


@dataclass(frozen=True)
class Given:
    """A key with something else: the object store's identities, Alertmanager's configuration, or a key of 32 bytes."""

    what: str


Content = Text | Generated | Given
IDENTITIES = Given("identities")
RECEIVERS = Given("receivers")
KEY = Given("key")


@dataclass(frozen=True)
class Layout:
    """A Secret: its keys, and what it is for."""

    keys: Mapping[str, Content]
    note: str = ""


def _login(username: str, password: str, names: tuple[str, str] = ("username", "password")) -> dict[str, Content]:
    return {names[0]: Text(username), names[1]: Generated(password)}


def _access(user: str) -> dict[str, Content]:
    return _login(user, f"artifacts-{user}", ("access-key", "secret-key"))


PLATFORM: Mapping[str, Layout] = {
    METADATA_STORE: Layout(_login("mlflow", "metadata-store"), "PostgreSQL's owner"),
    "platform/artifacts": Layout(
        {"s3.json": IDENTITIES, **_access("platform")}, "`s3.json`: the object store's identities"
    ),
    "platform/artifacts-setup": Layout(
        _access("setup"), "creates and deletes buckets; only for the set-up and for a restore"
    ),
    "platform/tracking": Layout({"session-key": Generated("tracking-session")}, "signs MLflow's sessions"),
    "platform/tracking-users": Layout(
        {f"{user}-password": Generated(f"tracking-{user}") for user in TRACKING_USERS},
        "MLflow's users, who are the promotion service's callers too; `promotion` is its own",
    ),
    "training/tracking": Layout(_login("trainer", "tracking-trainer")),
    "training/artifacts": Layout(_access("trainer"), "reads and writes the bucket `datasets`, reads `code`"),
    "serving/tracking": Layout(_login("server", "tracking-server")),
    "platform/features": Layout(
        {"database-password": Generated("features-database"), **_access("features")},
        "PostgreSQL's role `features`; reads and writes `datasets/features`; used by `platform/features`",
    ),
}
"""By `<namespace>/<name>`. Profiles without monitoring or pipelines leave out keys with a password of theirs."""
MONITORED: Mapping[str, Layout] = {
    f"platform/{MONITORING}": Layout(
        {"password": Generated("monitoring-admin")}, "login of the pages of monitoring; the user is `admin`"
    ),
    f"{MONITORING}/tracking": Layout(_login("monitor", "tracking-monitor")),
    f"{MONITORING}/metadata-store": Layout(_login("monitor", "metadata-store-monitor"), "PostgreSQL's role `monitor`"),
    f"{MONITORING}/receivers": Layout({"alertmanager.yaml": RECEIVERS}, "receivers of alerts"),
    "platform/metadata-store-monitor": Layout(
        {"password": Generated("metadata-store-monitor")}, "creates PostgreSQL's role `monitor`"
    ),
}
"""Those of profiles with monitoring."""
PIPELINED: Mapping[str, Layout] = {
    f"platform/{PIPELINES}": Layout(
        {"password": Generated("pipelines-admin"), "database-password": Generated("pipelines-database")},
        "login of the pages of pipelines, where the user is `admin`; creates PostgreSQL's role `pipelines`",
    ),
    f"{PIPELINES}/metadata-store": Layout(
        {"password": Generated("pipelines-database")}, "PostgreSQL's role `pipelines`, with a database of its own"
    ),
    f"{PIPELINES}/tracking": Layout(_login("pipelines", "tracking-pipelines")),
    f"{PIPELINES}/artifacts": Layout(_access("pipelines"), "reads the bucket `datasets`"),
}
"""Those of profiles with pipelines."""
FORGE: Mapping[str, Layout] = {
    "platform/forge": Layout(
        {
            "database-password": Generated("forge-database"),
            "secret-key": Generated("forge-secret-key"),
            "internal-token": Generated("forge-internal-token"),
            "jwt-secret": KEY,
            "metrics-token": Generated("forge-metrics"),
        },
        "only with `platform/forge`, as the next five; `jwt-secret`: 32 bytes in base64url",
    ),
    "platform/forge-users": Layout(
        {"admin": Generated("forge-user-admin")}, "a password for each user, by name; `admin` is one"
    ),
    "platform/forge-copies": Layout(
        {"token": Generated("forge-copies")}, "lets the backup read the forge's files, and a restore write them"
    ),
    "platform/forge-runner": Layout(
        {"token": Generated("forge-runner")}, "32 characters: makes jobs' pods known to the forge"
    ),
    f"{FORGE_JOBS}/forge-runner": Layout({"token": Generated("forge-runner")}, "the same"),
    f"{MONITORING}/forge": Layout(
        {"token": Generated("forge-metrics")}, "the forge's `metrics-token`, with monitoring"
    ),
}
"""Those of the forge, which is there if the namespace of its jobs is."""
# Keys of `infra/second_place.py`, `infra/gitops.py` and `infra/credentials.py`, by the settings.
OTHERS: Mapping[str, tuple[str, str]] = {
    "platform/backup-copy": (
        "`endpoint`, `bucket`, `prefix`, `region`, `access-key`, `secret-key`, `makes-bucket`",
        "the second place of backups, if there is one; `makes-bucket`: the bucket is to be created",
    ),
    "platform/backup-store": ("`s3.json`", "only with `platform/backup/to-volume`"),
    "gitops/cache": (
        "`password`, `redis.conf`",
        "only with `platform/gitops`, as the next two; `redis.conf`: `requirepass` and it",
    ),
    "gitops/repository": (
        "`type`, `url`, `username`, `password`",
        "the Git repository, labelled `argocd.argoproj.io/secret-type: repository`; the login where it has one",
    ),
    "gitops/cluster": (
        "`name`, `server`, `config`, `namespaces`, `clusterResources`",
        "which namespaces are applied to, labelled `argocd.argoproj.io/secret-type: cluster`",
    ),
    "gateway/certificate": ("`tls.crt`, `tls.key`", "the gateway's certificate"),
    "gateway/authority": ("`tls.crt`, `tls.key`", "signs and renews the gateway's certificate"),
}


def passwords(*, monitored: bool, pipelined: bool) -> list[str]:
    """Names of the passwords to generate."""
    parts = ((MONITORED, monitored), (PIPELINED, pipelined))
    wanted = [name for part in (PLATFORM, *(part for part, there in parts if there)) for name in _passwords(part)]
    left_out = {name for part, there in parts if not there for name in _passwords(part)}
    names = dict.fromkeys([*wanted, *(f"artifacts-{user}" for user in S3_ACTIONS)])
    return [name for name in names if name not in left_out]


def _passwords(layouts: Mapping[str, Layout]) -> Iterator[str]:
    contents = (content for one in layouts.values() for content in one.keys.values())
    yield from (content.password for content in contents if isinstance(content, Generated))


def table() -> str:
    """The table of all Secrets in k8s/README.md."""
    rows = [
        *(
            (name, ", ".join(f"`{key}`" for key in one.keys), one.note)
            for name, one in {**PLATFORM, **MONITORED, **PIPELINED, **FORGE}.items()
        ),
        *((name, *row) for name, row in OTHERS.items()),
    ]
    lines = (
        "| Secret | keys | notes |",
        "|---|---|---|",
        *(f"| `{name}` | {listed} | {note} |" for name, listed, note in rows),
    )
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The commands in k8s/secrets.sh that fill and create the Secrets."""
    forge = [f"    {line}" for line in _commands(FORGE)]
    # Its other users are arguments.
    users = '    for user in "$@"; do password "forge-user-$user" | put platform forge-users "$user"; done'
    forge.insert(forge.index("    make platform forge-users"), users)
    others = [line for part in (PLATFORM, MONITORED, PIPELINED) for line in _commands(part)]
    lines = [*others, f"if has {FORGE_JOBS}; then", *forge, "fi"]
    return "\n".join(lines) + "\n"


def _commands(layouts: Mapping[str, Layout]) -> Iterator[str]:
    for name, layout in layouts.items():
        where = name.replace("/", " ")
        for key, content in layout.keys.items():
            source = (
                f"echo {content.text}"
                if isinstance(content, Text)
                else f"password {content.password}"
                if isinstance(content, Generated)
                else content.what
            )
            yield f"{source} | put {where} {key}"
        yield f"make {where}"


def identities() -> str:
    """The function in k8s/secrets.sh that prints the object store's identities."""
    lines: list[str] = []
    for user, actions in S3_ACTIONS.items():
        allowed = ", ".join(f'"{action}"' for action in actions)
        start, end = ('{"identities": [' if not lines else ""), ("]}" if len(lines) == len(S3_ACTIONS) - 1 else ", ")
        lines.append(
            f'    printf \'{start}{{"name": "{user}", "credentials": [{{"accessKey": "{user}", "secretKey": "%s"}}], '
            f'"actions": [{allowed}]}}{end}\' "$(password artifacts-{user})"'
        )
    return "\n".join(["identities() {", *lines, "}"]) + "\n"


def _between(text: str, marks: tuple[str, str], content: str) -> str:
    """The text with `content` between two lines that stay."""
    start, end = (f"{mark}\n" for mark in marks)
    head, _, rest = text.partition(start)
    return f"{head}{start}{content}{end}{rest.partition(end)[2]}"


def files() -> dict[Path, str]:
    """The files that the layout is written into, with their content."""
    script, page = TREE / "secrets.sh", TREE / "README.md"
    note = "by `python -m infra.secret_layout`"
    return {
        script: _between(script.read_text(), (f"# Generated {note}:", "# End."), identities() + commands()),
        page: _between(page.read_text(), (f"<!-- generated {note} -->", "<!-- end -->"), table()),
    }


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text)
