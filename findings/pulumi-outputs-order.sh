#!/usr/bin/env bash
# Pulumi: a dictionary that a program exports, or hands to a resource, arrives in another order at every run.
#
# With:      pulumi 3.272.0 and protobuf 6.33.6 with its default implementation, upb.
# Program:   serializes one dictionary of six addresses, as the SDK does for every resource and every stack
#            output, and reads it back.
# Expected:  the order of the program, as a dictionary of Python keeps it; or one order, whichever.
# Seen:      another order in each process, PYTHONHASHSEED set or not. So "the first address of the outputs"
#            is another machine's each time, and two snapshots of equal states differ as text. With protobuf's
#            implementation in Python, which nobody chooses, the program's order is kept.
# Way out:   a list where the order counts; keys that are looked up by name; sorted keys where text is compared.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pulumi==3.272.0 protobuf==6.33.6 || exit 2

cd "$work"
cat > program.py <<'PY'
import asyncio

from google.protobuf.struct_pb2 import Struct
from pulumi.runtime import rpc


async def main():
    addresses = {name: name for name in ("control-0", "control-1", "control-2", "worker-0", "worker-1", "worker-2")}
    sent = await rpc.serialize_properties(addresses, {})
    received = Struct.FromString(sent.SerializeToString())
    print(*rpc.deserialize_properties(received))


asyncio.run(main())
PY

orders() {
  for _ in 1 2 3 4 5 6 7 8; do
    env "$@" "$work/venv/bin/python" program.py
  done | sort -u | wc -l
}
upb=$(orders PYTHONHASHSEED=1)
python=$(orders PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python)
echo "eight runs: $upb different orders with upb, $python with protobuf in Python"
[ "$upb" -gt 1 ] && [ "$python" -eq 1 ]
