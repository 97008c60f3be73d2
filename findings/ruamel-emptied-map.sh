#!/usr/bin/env bash
# ruamel.yaml: take the last entry out of a map whose key has a comment, and what is written is no YAML any more.
#
# With:      ruamel.yaml 0.19.1, round trip (the default), a settings file with comments.
# Document:  valid; a map and a list of one entry each, their keys with a comment at the end of the line. The one entry
#            is deleted, and the document is written.
# Expected:  `volumes: {} # kept` and `ranges: [] # who`: an empty map and an empty list, readable again.
# Seen:      `{}` and `[]` come on a line of their own below the comment, in the first column. ruamel.yaml itself refuses
#            to read the file then ("could not find expected ':'"), and so does PyYAML. Nothing is raised while it is
#            written. Without the comment, or with one entry left, all is well.
# Way out:   set the flow style of what has become empty (`node.fa.set_flow_style()`) before it is written.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ruamel.yaml==0.19.1 PyYAML==6.0.3 || exit 2

cd "$work"
"$work/venv/bin/python" - <<'PY'
import io
import sys

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

COMMENTED = """\
lab:
  volumes: # kept
    data: 1
  ranges: # who
    - 10.0.0.0/8
  last: x
"""


def emptied(text, *, flow=False):
    """The document without the only entry of its map and of its list, as it is written."""
    round_trip, out = YAML(), io.StringIO()
    document = round_trip.load(text)
    lab = document["lab"]
    del lab["volumes"]["data"]
    del lab["ranges"][0]
    if flow:
        lab["volumes"].fa.set_flow_style()
        lab["ranges"].fa.set_flow_style()
    round_trip.dump(document, out)
    return out.getvalue()


def readers(text):
    """What two readers make of a text; the name of the error where one refuses it."""
    found = []
    for load, error in ((YAML(typ="safe").load, YAMLError), (yaml.safe_load, yaml.YAMLError)):
        try:
            found.append(load(text))
        except error as refused:
            found.append(type(refused).__name__)
    return found


wanted = {"lab": {"volumes": {}, "ranges": [], "last": "x"}}
written = emptied(COMMENTED)
plain = emptied(COMMENTED.replace(" # kept", "").replace(" # who", ""))
styled = emptied(COMMENTED, flow=True)
for title, text in (("with comments", written), ("without", plain), ("flow style", styled)):
    print(f"{title}:\n{text}{readers(text)}\n")
as_recorded = (
    "\n{}\n" in written and "\n[]\n" in written and readers(written) == ["ScannerError"] * 2
    and readers(plain) == [wanted] * 2 and readers(styled) == [wanted] * 2
)
sys.exit(not as_recorded)
PY
