"""Stands for ./lab in the repository that the tests push: it does what a job's verb would do, at the forge alone.

`lab ci comment` in it is the real one, at the path in LAB; the workflows that call it are the repository's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

LAB, MARKS = "@LAB@", Path("@MARKS@")
SECRETS = ("CLOUDS_YAML", "PULUMI_CONFIG_PASSPHRASE", "AWS_SECRET_ACCESS_KEY")


def status(path: str, method: str = "GET", body: object = None) -> int:
    """What the forge answers to the job's token."""
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}{path}", None if body is None else json.dumps(body).encode(), method=method
    )
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"token {os.environ['GITHUB_TOKEN']}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def main(verb: str) -> int:
    commit = os.environ["GITHUB_SHA"]
    if verb == "check":
        return Path("broken").exists()
    if verb == "preview":
        report = Path("report.md")
        report.write_text(f"<!-- preview -->\n\nThis would change: {Path('settings').read_text()}\n")
        return subprocess.run([LAB, "ci", "comment", str(report)], check=False).returncode
    if verb == "deploy":
        (MARKS / f"began-{commit}").touch()
        while (MARKS / "hold").exists():
            time.sleep(0.1)
        (MARKS / f"ended-{commit}").touch()
        return 0
    if verb == "drift":
        return status(f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues", "POST", {"title": "Drift"}) != 201
    if verb == "ask":  # what a job can reach, and what it knows
        own = f"/repos/{os.environ['GITHUB_REPOSITORY']}"
        found = {
            "own": status(own),
            "other": status("/repos/lab/other"),
            "users": status("/admin/users"),
            "push": status(f"{own}/contents/new", "POST", {"content": "", "message": "by a job", "branch": "by-a-job"}),
            "secrets": [name for name in SECRETS if os.environ.get(name)],
            "environment": sorted(name for name in os.environ if "REGISTRATION" in name),
        }
        print(f"FOUND {json.dumps(found)}")
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(next(word for word in sys.argv[1:] if not word.startswith("-") and word != "ci")))
