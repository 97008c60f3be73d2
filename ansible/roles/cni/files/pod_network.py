"""Keeps a node's pod network: its own range for containerd, and a route to every other node's pods.

A service of each node. It follows the cluster's nodes with the kubelet's certificate, so who joins, leaves or has
another address changes nothing that a playbook would have to write. Standard library only: it runs with whatever
Python the node has.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request

KUBECONFIG = "/etc/kubernetes/kubelet.conf"
CERTIFICATE = "/var/lib/kubelet/pki/kubelet-client-current.pem"
AUTHORITY = "/etc/kubernetes/pki/ca.crt"
CONFIGURATION = "/etc/cni/net.d/10-pods.conflist"
PROTOCOL = "201"  # marks our routes
WATCH_SECONDS = 300
SILENCE_SECONDS = 30
RETRY_SECONDS = 1


def log(text):
    """A line for the journal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def configuration(pod_range, mtu):
    """How containerd connects pods, as CNI has it."""
    address = {"type": "host-local", "ranges": [[{"subnet": pod_range}]], "routes": [{"dst": "0.0.0.0/0"}]}
    ptp = {"type": "ptp", "mtu": mtu, "ipMasq": False, "ipam": {**address, "dataDir": "/run/cni-ipam"}}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [ptp, portmap]}, indent=2) + "\n"


def write_configuration(text):
    """Write it where it differs: in one go and in place, for containerd overlooks a file that is moved there."""
    try:
        with open(CONFIGURATION) as file:
            if file.read() == text:
                return
    except OSError:
        pass
    descriptor = os.open(CONFIGURATION, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    log("wrote the pods' range")


def routes():
    """Our routes: gateway by range."""
    done = subprocess.run(
        ["ip", "-json", "route", "show", "proto", PROTOCOL], check=True, capture_output=True, text=True
    )
    return {route["dst"]: route["gateway"] for route in json.loads(done.stdout or "[]")}


def wanted_routes(nodes, own):
    """Address by range of pods, of every other node that has both."""
    return {pods: address for name, (pods, address) in nodes.items() if name != own and pods and address}


def apply(nodes, own, mtu):
    """Bring this node to what the cluster's nodes ask for. `nodes`: range of pods and address, by name."""
    pod_range = nodes.get(own, ("", ""))[0]
    if pod_range:
        write_configuration(configuration(pod_range, mtu))
    there, wanted = routes(), wanted_routes(nodes, own)
    for pods, address in sorted(wanted.items()):
        if there.get(pods) != address:
            subprocess.run(["ip", "route", "replace", pods, "via", address, "proto", PROTOCOL], check=False)
            log(f"{pods} via {address}")
    for pods in sorted(there.keys() - wanted.keys()):
        subprocess.run(["ip", "route", "delete", pods, "proto", PROTOCOL], check=False)
        log(f"{pods} is gone")


def described(node):
    """Range of pods and address of a node; empty where it has none yet."""
    addresses = [one["address"] for one in node["status"].get("addresses", ()) if one["type"] == "InternalIP"]
    return node["spec"].get("podCIDR", ""), addresses[0] if addresses else ""


class Api:
    """The API as the kubelet reaches it."""

    def __init__(self):
        with open(KUBECONFIG) as file:
            found = re.search(r"^\s*server:\s*(\S+)\s*$", file.read(), re.MULTILINE)
        if found is None:
            raise OSError(f"{KUBECONFIG} names no server")
        self.server = found.group(1)
        self.context = ssl.create_default_context(cafile=AUTHORITY)
        self.context.load_cert_chain(CERTIFICATE)

    def get(self, path, seconds):
        """Open an answer."""
        return urllib.request.urlopen(f"{self.server}{path}", timeout=seconds, context=self.context)


def follow(own, mtu):
    """List the nodes, then follow their changes until the API ends the watch."""
    api = Api()
    with api.get("/api/v1/nodes", SILENCE_SECONDS) as answer:
        found = json.load(answer)
    nodes = {node["metadata"]["name"]: described(node) for node in found["items"]}
    apply(nodes, own, mtu)
    version = found["metadata"]["resourceVersion"]
    path = f"/api/v1/nodes?watch=1&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
    with api.get(path, WATCH_SECONDS + SILENCE_SECONDS) as events:
        for line in events:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            name = event["object"]["metadata"]["name"]
            before = nodes.pop(name, None)
            if event["type"] != "DELETED":
                nodes[name] = described(event["object"])
            if nodes.get(name) != before:
                apply(nodes, own, mtu)


def main():
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", required=True)
    parser.add_argument("--mtu", type=int, required=True)
    arguments = parser.parse_args()
    said = ""
    while True:
        try:
            follow(arguments.node, arguments.mtu)
            said = ""
        except (OSError, ValueError, KeyError, http.client.HTTPException, subprocess.CalledProcessError) as error:
            # Until the node has joined, and while the API is away; the routes stay.
            if str(error) != said:
                said = str(error)
                log(f"waiting for the API: {said}")
        time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main()
