"""The rules of the repository that a GitOps controller applies."""

from collections.abc import Iterator

from infra.naming import PROJECT
from infra.settings.rules import Context, Location, Violation, rule

GITOPS: Location = ("platform", "gitops")
REPOSITORY: Location = (*GITOPS, "repository")
USERNAME: Location = (*GITOPS, "username")
PASSWORD = "gitopsPassword"  # noqa: S105 - a setting's name
SET_PASSWORD = f"Set it with `lab config set --secret {PASSWORD} < FILE`."


@rule
def gitops_has_a_repository(context: Context) -> Iterator[Violation]:
    """`platform.apply: gitops` needs `platform.gitops.repository` or `platform.forge`, or a controller of your own."""
    platform = context.settings.platform
    if platform is None or platform.apply != "gitops" or platform.gitops.controller == "none":
        return
    if platform.gitops.repository is None and platform.forge is None:
        yield Violation(
            REPOSITORY,
            "is required by apply: gitops",
            "Name a repository, add platform.forge, which has one, or set platform.gitops.controller: none for a "
            "controller of your own.",
            (("platform", "apply"), ("platform",)),
        )


@rule
def gitops_login(context: Context) -> Iterator[Violation]:
    """`platform.gitops.username` needs a repository and the secret `gitopsPassword`, which needs the username."""
    platform, password = context.settings.platform, context.settings.gitops_password
    username = platform.gitops.username if platform else None
    encrypted = f"{PROJECT}:{PASSWORD}" in (context.secret_keys or ())
    if platform and username and platform.gitops.repository is None:
        problem = "is the login of no repository: the forge's is made by the stack"
        yield Violation(USERNAME, problem, "Set platform.gitops.repository, or remove it.", (REPOSITORY,))
    if password is None:
        if username and context.secret_keys is not None and not encrypted:
            problem = "is a secret that platform.gitops.username needs"
            yield Violation((PASSWORD,), problem, SET_PASSWORD, (USERNAME,))
    elif context.secret_keys is not None and not encrypted:
        remedy = f"Get a new one (this one may have been seen). {SET_PASSWORD}"
        yield Violation((PASSWORD,), "is stored in plain text in the stack's file", remedy)
    elif not username:
        remedy = "Set platform.gitops.username, or remove it."
        yield Violation((PASSWORD,), "has no platform.gitops.username that it belongs to", remedy, (USERNAME,))
