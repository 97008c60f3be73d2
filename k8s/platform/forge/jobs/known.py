"""Ends with 1 where the forge has forgotten this pod, as after a restore: such a pod would wait for a job for ever."""

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
    """Whether the forge still knows it. A forge that does not answer has not forgotten anybody."""
    own = json.loads(REGISTRATION.read_text())
    # It refuses this to everybody, as there is no such job; only who it knows gets as far as to be told that.
    request = urllib.request.Request(  # noqa: S310 - the address that it was made known at
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
    """Whether a job runs: then the pod ends with it anyway."""
    return any(WORK.glob("*/hostexecutor"))


if __name__ == "__main__":
    sys.exit(0 if has_job() or is_known() else 1)
