#!/usr/bin/env bash
# Pulumi: Output.json_dumps refuses a dictionary with integer keys, which json.dumps writes as text.
#
# With:      pulumi 3.272.0 (the Python SDK; no CLI is needed).
# Data:      a model's classes by number, {0: "cat", 1: "dog"}, as label maps often are.
# Expected:  {"0": "cat", "1": "dog"}, as json.dumps answers; json_dumps is described as json.dumps for
#            values that may hold outputs, and takes the same arguments.
# Seen:      TypeError "keywords must be strings", which names neither the key nor JSON: to find outputs inside
#            it, a dictionary's items are passed on as keyword arguments. An output of such a dictionary
#            fails in the same way; `apply` alone does not.
# Way out:   json.dumps inside apply, or text keys.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pulumi==3.272.0 || exit 2

cd "$work"
"$work/venv/bin/python" - <<'PY'
import asyncio
import json
import sys

import pulumi

CLASSES = {0: "cat", 1: "dog"}


class Nothing(pulumi.runtime.Mocks):
    def new_resource(self, args):
        return args.name, args.inputs

    def call(self, args):
        return {}


def classes():
    return pulumi.Output.from_input("digits").apply(lambda _: CLASSES)


async def written(make):
    try:
        return await make().future()
    except TypeError as error:
        return f"{type(error).__name__}: {error}"


async def main():
    return [
        await written(lambda: pulumi.Output.json_dumps(CLASSES)),
        await written(lambda: pulumi.Output.json_dumps(classes())),
        await written(lambda: classes().apply(json.dumps)),
    ]


pulumi.runtime.set_mocks(Nothing())
plain, inside, applied = asyncio.new_event_loop().run_until_complete(main())
print("json.dumps:              ", json.dumps(CLASSES))
print("Output.json_dumps:       ", plain)
print("json_dumps of an output: ", inside)
print("json.dumps inside apply: ", applied)
refused = "TypeError: keywords must be strings"
sys.exit(not (plain == inside == refused and applied == json.dumps(CLASSES)))
PY
