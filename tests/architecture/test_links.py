"""Symbolic links of the repository: Argo CD refuses a repository with one that leads out of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_link_leads_out_of_the_repository() -> None:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "--stage"], check=True, capture_output=True, text=True)
    links = [line.partition("\t")[2] for line in listed.stdout.splitlines() if line.startswith("120000")]
    assert links
    leads = {link: os.path.normpath(Path(link).parent / (ROOT / link).readlink()) for link in links}
    assert {link: to for link, to in leads.items() if to.startswith(("/", ".."))} == {}
