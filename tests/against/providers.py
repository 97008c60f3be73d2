"""The providers' faults, by their gRPC; those of Kubernetes on an API server of the bundle."""

from __future__ import annotations

import copy
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi.runtime.proto import provider_pb2

from providers.values import UNKNOWN, marshal, plain, unmarshal
from tests.against.points import Point
from tests.providers.kubernetes.control_plane import ControlPlane
from tests.providers.kubernetes.test_cluster import CONFIG_MAP, DEPLOYMENT, config_map, workload
from tests.providers.kubernetes.test_immutable import SAMPLES, answer, filled, make
from tests.providers.kubernetes.test_immutable import changed as with_another
from tests.providers.plugin import CallError, changed
from tests.providers.test_spellings import BOOT_VOLUME, IDS, INSTANCE, NEEDED, NO_IMAGE, RULE, SPELLINGS, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.against.checkout import Checkout
    from tests.against.points import Tried
    from tests.providers.plugin import Plugin

DECODE = "kubernetes:yaml:decode"
MANIFEST = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n- {}\n"
# What kubectl makes of them; tests/kubeyaml asks it.
SCALARS: dict[str, Any] = {
    "=": "=",
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "0o14": 12,
    "1e3": 1000,
    "0b101": 5,
    "2026-01-02": "2026-01-02",
}


@contextmanager
def offline(checkout: Checkout) -> Iterator[Plugin]:
    """The OpenStack provider of a cloud that is not known yet."""
    with checkout.plugin("openstack") as plugin:
        plugin.configure(authUrl=UNKNOWN)
        yield plugin


def spellings(checkout: Checkout, tried: Tried) -> None:
    with offline(checkout) as plugin:
        for name, (token, outputs, other, _) in zip(IDS, SPELLINGS, strict=True):
            needed = {**NEEDED.get(token, {}), **(outputs if token == RULE else {})}
            with tried.of(name):
                try:
                    found = changed(plugin.diff(stored(plugin, token, other, outputs), {**needed, **other}))
                except CallError as error:
                    raise AssertionError(f"refused: {error}") from None
                assert not found, f"a change of {', '.join(sorted(found))}"


def image_on_a_volume(checkout: Checkout, tried: Tried) -> None:
    devices = {
        "an image": BOOT_VOLUME,
        "a volume": {"sourceType": "volume", "destinationType": "volume", "uuid": "v"},
        "a snapshot": {"sourceType": "snapshot", "destinationType": "volume", "uuid": "s"},
    }
    images = {"imageId": {"imageId": "i"}, "imageName": {"imageName": "m"}, "both": {"imageId": "i", "imageName": "m"}}
    with offline(checkout) as plugin:
        for source, device in devices.items():
            for image, given in images.items():
                inputs = {"name": "i", "flavorId": "f", "blockDevices": [device], **given}
                resource = stored(plugin, INSTANCE, inputs, {"imageId": NO_IMAGE, "imageName": ""})
                with tried.of(f"{image}, volume of {source}"):
                    found = changed(plugin.diff(resource, inputs))
                    assert not found, f"a change of {', '.join(sorted(found))}"


def manifests(checkout: Checkout, tried: Tried) -> None:
    with checkout.plugin("kubernetes") as plugin:
        plugin.configure(kubeconfig=UNKNOWN)
        for scalar, meant in SCALARS.items():
            arguments = marshal({"text": MANIFEST.format(scalar)})
            with tried.of(f"- {scalar}"):
                try:
                    read = plugin.call("Invoke", provider_pb2.InvokeRequest(tok=DECODE, args=arguments))
                except CallError as error:
                    raise AssertionError(f"refused: {error}") from None
                ((value,),) = (item["data"] for item in unmarshal(getattr(read, "return"))["result"])
                assert json.dumps(value) == json.dumps(meant), f"read as {json.dumps(value)}"


@contextmanager
def on_a_cluster(checkout: Checkout) -> Iterator[tuple[ControlPlane, Plugin]]:
    """An API server, and the Kubernetes provider of it."""
    folder = checkout.scratch / "control-plane"
    folder.mkdir(exist_ok=True)
    with ControlPlane(Path(folder)) as plane, checkout.plugin("kubernetes") as plugin:
        plugin.configure(kubeconfig=str(plane.kubeconfig))
        yield plane, plugin


def namespace(plane: ControlPlane, name: str) -> str:
    plane.post({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def on_the_cluster(checkout: Checkout, tried: Tried) -> None:
    with on_a_cluster(checkout) as (plane, plugin):
        ignored_images(plane, plugin, tried)
        ignored_annotations(plane, plugin, tried)


def ignored_images(plane: ControlPlane, plugin: Plugin, tried: Tried) -> None:
    paths = (
        "spec.template.spec.containers[0].image",
        "spec.template.spec.containers[*].image",
        'spec["template"].spec.containers[0]["image"]',
    )
    for number, path in enumerate(paths):
        where = namespace(plane, f"images-{number}")
        inputs = workload(where, replicas=0)
        made = plugin.create(DEPLOYMENT, inputs)
        (main,) = inputs["spec"]["template"]["spec"]["containers"]
        theirs = {"spec": {"template": {"spec": {"containers": [{**main, "image": "registry/web:theirs"}]}}}}
        plane.edit("Deployment", made.id, theirs, "apps/v1", "updater")
        inputs = copy.deepcopy(inputs)
        inputs["metadata"]["labels"] = {"x": "y"}
        with tried.of(path):
            try:
                plugin.update(made, inputs, ignore=(path,))
            except CallError as error:
                raise AssertionError(f"refused: {error}") from None
            live: Any = plane.get("Deployment", made.id, "apps/v1")
            image = live["spec"]["template"]["spec"]["containers"][0]["image"]
            assert image == "registry/web:theirs", f"put back to {image}"


def ignored_annotations(plane: ControlPlane, plugin: Plugin, tried: Tried) -> None:
    for number, path in enumerate(('metadata.annotations["a.b/c"]', 'metadata["annotations"]["a.b/c"]')):
        where = namespace(plane, f"annotations-{number}")
        inputs = config_map(where, a="1")
        inputs["metadata"]["annotations"] = {"a.b/c": "ours", "other": "ours"}
        made = plugin.create(CONFIG_MAP, inputs)
        plane.edit("ConfigMap", made.id, {"metadata": {"annotations": {"a.b/c": "theirs"}}}, manager="theirs")
        inputs = copy.deepcopy(inputs)
        inputs["metadata"]["labels"] = {"x": "y"}
        with tried.of(path):
            try:
                plugin.update(made, inputs, ignore=(path,))
            except CallError as error:
                raise AssertionError(f"refused: {error}") from None
            live: Any = plane.get("ConfigMap", made.id)
            assert live["metadata"]["annotations"]["a.b/c"] == "theirs", "put back"


def immutable(checkout: Checkout, tried: Tried) -> None:
    """Each field of each kind that the server refuses to change must be planned as a replacement."""
    with on_a_cluster(checkout) as (plane, plugin):
        for sample in SAMPLES:
            where = namespace(plane, f"samples-{sample.number}")
            names = {"NAMESPACE": where, "NAME": f"sample-{sample.number}"}
            target, made = make(plane, plugin, sample, names)
            for path, value in filled(sample.changes, names).items():
                manifest = with_another(made.inputs, path, value)
                if answer(plane, target, manifest, made.outputs["__fieldManager"]) != "refused":
                    continue
                with tried.of(f"{sample} {path}"):
                    assert plugin.diff(made, plain(manifest)).replaces, "planned as an update"


POINTS = (
    Point("11", "OpenStack: another spelling of what is stored is a change", spellings),
    Point("12", "OpenStack: the image of an instance on a volume is a change", image_on_a_volume),
    Point("13", "Kubernetes: `ignore_changes` is not left to its owner", on_the_cluster, cluster=True),
    Point("14", "Kubernetes: manifests are read by YAML 1.1", manifests),
    Point("15", "Kubernetes: immutable fields are planned as updates", immutable, cluster=True),
)
