"""The last step of `lab up` where the platform has a forge: the repository is pushed to it, once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cli.errors import LabError
from cli.git_command import configured, git
from cli.workloads import Platform, wait

FORGE = "forge"
ADMIN = "admin"
REPOSITORY = "lab/cluster"
MAIN = "main"
API = f"/api/v1/repos/{REPOSITORY}"
READY_SECONDS = 600
HELPER = '!f() { echo "username=$LAB_FORGE_USER"; echo "password=$LAB_FORGE_PASSWORD"; }; f'
"""Has git ask the environment for the password, which so is on no command line and in no file."""


def provide_repository(platform: Platform, project: Path) -> None:
    """Push the commit that is checked out, unless the forge has a `main` already; then pull requests change it.

    Raises:
        LabError: the forge does not answer, or refuses.
    """
    wait(lambda: _there(platform, ""), READY_SECONDS, lambda: "waiting for the forge's repository")
    address = f"{platform.url(FORGE)}/{REPOSITORY}"
    if not _there(platform, f"/branches/{MAIN}"):
        if (head := git(project, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").stdout.strip()) == "":
            print(f"{project} is no Git repository: push one to {address}.")
            return
        _push(platform, project, head)
        print(f"Pushed {head[:12]} to {address}.")
        if git(project, "status", "--porcelain", "--untracked-files=no").stdout.strip():
            print("  Changes that are not committed are not in it.")
    wait(
        lambda: _there(platform, f"/branch_protections/{MAIN}"),
        READY_SECONDS,
        lambda: f"waiting for {MAIN}'s protection",
    )


def settings_of_git(platform: Platform, authority: Path, user: str = ADMIN) -> dict[str, str]:
    """Variables by which git reaches the forge through the gateway, by address, as one of its users.

    The user's own proxy and authorities are for other servers.
    """
    name = f"{FORGE}.{platform.domain}"
    settings = {
        "credential.helper": HELPER,
        "http.proxy": "",
        # Debian 12's libcurl loses some large pushes over HTTP/2.
        "http.version": "HTTP/1.1",
        "http.curloptResolve": f"{name}:{platform.port}:{platform.address}",
    }
    return {
        **configured(settings),
        "GIT_SSL_CAINFO": str(authority),  # the variable wins over http.sslCAInfo
        "LAB_FORGE_USER": user,
        "LAB_FORGE_PASSWORD": platform.credentials[FORGE][user],
    }


def _push(platform: Platform, project: Path, head: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        authority = Path(folder, "authority.pem")
        authority.write_text(platform.authority)
        target = f"{platform.url(FORGE)}/{REPOSITORY}.git"
        variables = settings_of_git(platform, authority)
        done = git(project, "push", "--quiet", target, f"{head}:refs/heads/{MAIN}", environment=variables)
    if done.returncode:
        raise LabError(
            f"the repository could not be pushed to {target}: {done.stderr.strip()[-500:]}",
            remedy="a shallow clone needs `git fetch --unshallow` first; otherwise run `lab up` again",
        )


def _there(platform: Platform, path: str) -> bool:
    """Whether the forge has something; False while it does not answer."""
    import urllib3

    login = urllib3.make_headers(basic_auth=f"{ADMIN}:{platform.credentials[FORGE][ADMIN]}")
    try:
        pool = platform.connect(FORGE)
        answer = pool.request("GET", f"{API}{path}", headers={**(pool.headers or {}), **login})
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200
