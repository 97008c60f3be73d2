"""Settings and rosters that are accepted, and break later; or good ones that are refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.against.points import Point
from tests.infra.wrong import NOW, WRONG, configuration, write_key_files

if TYPE_CHECKING:
    from tests.against.checkout import Checkout
    from tests.against.points import Tried

REPORTED = re.compile(
    r"(SSH|API|web|IPv6|port) twice|(gateway|redirect|etcd|kubelet) as web port|domain .*"
    r"|(blank|none) .*|lease of spaces|key (file is|file in|file of|of nobody|is a device).*"
)


def wrong_settings(checkout: Checkout, tried: Tried) -> None:
    kind = [wrong for wrong in WRONG if REPORTED.fullmatch(wrong.name)]
    source = checkout.scratch / "Pulumi.wrong.yaml"
    write_key_files(checkout.scratch)
    answers = checkout.read_settings([configuration(wrong.change) for wrong in kind], source, NOW.isoformat())
    for wrong, answer in zip(kind, answers, strict=True):
        with tried.of(wrong.name):
            assert answer is not None, "accepted"
            assert wrong.key in answer, answer


def public_key() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def rosters(checkout: Checkout, tried: Tried) -> None:
    def status(*lines: str, end: str = "\n") -> subprocess.CompletedProcess[str]:
        path = checkout.scratch / "autumn.csv"
        path.write_text(end.join([*lines, ""]), newline="")
        lab = [sys.executable, str(checkout.root / "cli/__main__.py"), "--cwd", str(checkout.root)]
        environment = {**os.environ, "PULUMI_BACKEND_URL": f"file://{checkout.scratch}", "HOME": str(checkout.scratch)}
        return subprocess.run(
            [*lab, "--engine", "embedded", "class", "status", str(path), "--json"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    good = {
        "empty rows": ["id,key", f"s1,{public_key()}", ",", "", " , "],
        "empty columns": ["id,key,,", f"s1,{public_key()},,"],
        "spaces around": ["id,key", f" s1 ,{public_key()}"],
    }
    for name, lines in good.items():
        done = status(*lines)
        with tried.of(name):
            assert done.returncode == 0, done.stderr
    done = status("id,key", f"s1,{public_key()}", ",", end="\r\n")
    with tried.of("lines of Windows"):
        assert done.returncode == 0, done.stderr
    one, two = public_key(), public_key()
    cells = {"on two lines": f'"{one}\n{two}"', "with a comma": f'"{one},{two}"', "with a space": f"{one} {two}"}
    for name, cell in cells.items():
        done = status("id,key", f"s1,{cell}")
        with tried.of(f"two keys {name}"):
            assert done.returncode, "accepted"
            assert "Traceback" not in done.stderr, done.stderr


POINTS = (
    Point("16", "Settings are accepted, and break later", wrong_settings),
    Point("16", "Rosters as spreadsheets write them", rosters),
)
