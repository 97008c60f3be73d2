#!/usr/bin/env bash
# Blazar's client: a lease prolonged by 30 seconds is not, one reduced by 30 seconds loses a minute.
#
# With:      python-blazarclient 4.6.0, against a server of this script that answers one lease.
# Call:      lease.update(id, prolong_for="30s") and reduce_by="30s"; "s" is one of the client's four units.
# Expected:  the lease's end moves by what was asked, or the unit is refused.
# Seen:      the new end is sent in whole minutes, cut, so 12:00:00 plus 30 seconds goes out as 12:00: a
#            request that changes nothing. However often it is repeated, the lease ends when it did.
#            12:00:00 less 30 seconds goes out as 11:59.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check python-blazarclient==4.6.0 || exit 2

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import http.server
import json
import sys
import threading

from blazarclient import client

LEASE = {"id": "1", "name": "lab", "start_date": "2026-03-01T10:00:00.000000", "end_date": "2026-03-01T12:00:00.000000"}
sent = []


class Blazar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer()

    def do_PUT(self):
        sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer()

    def _answer(self):
        text = json.dumps({"lease": LEASE}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Blazar)
threading.Thread(target=server.serve_forever, daemon=True).start()
blazar = client.Client(blazar_url=f"http://127.0.0.1:{server.server_port}", auth_token="any")

recorded = {
    ("prolong_for", "30s"): "2026-03-01 12:00",
    ("prolong_for", "59s"): "2026-03-01 12:00",
    ("prolong_for", "90s"): "2026-03-01 12:01",
    ("reduce_by", "30s"): "2026-03-01 11:59",
}
changed = False
for (argument, time), end in recorded.items():
    blazar.lease.update("1", **{argument: time})
    print(f"end 12:00:00, {argument}={time}: sent {sent[-1]}")
    changed = changed or sent[-1] != {"end_date": end}
sys.exit(changed)
PY
