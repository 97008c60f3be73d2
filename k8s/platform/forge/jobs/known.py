"""Exits with 1 if the forge no longer knows this pod, as after a restore: it would wait for a job for ever."""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

REGISTRATION = Path(os.environ.get("REGISTRATION", "/run/runner/registration"))
WORK = Path(os.environ.get("WORK", "/work"))
FORGOTTEN = b"unregistered runner"


def is_known() -> bool:
    """Whether the forge knows this runner; also true if the forge does not answer."""
    own = json.loads(REGISTRATION.read_text())
    # The forge always refuses this, as there is no such job, but to an unknown runner with another error.
    request = urllib.request.Request(  # noqa: S310 - the address of its registration
        f"{own['address'].rstrip('/')}/api/actions/runner.v1.RunnerService/UpdateLog",
        b"{}",
        {"Content-Type": "application/json", "x-runner-uuid": own["uuid"], "x-runner-token": own["token"]},
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        return FORGOTTEN not in error.read()
    except OSError:
        return True
    return True


def has_job() -> bool:
    """Whether a job runs: the pod ends with it anyway."""
    return any(WORK.glob("*/hostexecutor"))


if __name__ == "__main__":
    sys.exit(0 if has_job() or is_known() else 1)
