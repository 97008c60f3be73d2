"""The executable: configuration, failures without a cloud, previews, secrets, its start and its end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from providers.values import UNKNOWN, Secret, marshal, unmarshal
from tests.providers.plugin import EXECUTABLE, CallError, Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from providers.values import Properties

NETWORK = "openstack:networking/network:Network"
KEYPAIR = "openstack:compute/keypair:Keypair"
INSTANCE = "openstack:compute/instance:Instance"
CLOUDS = """
clouds:
  good: {auth: {auth_url: "http://127.0.0.1:9/v3", username: u, password: planted-in-yaml, project_name: p,
         user_domain_id: default, project_domain_id: default}, region_name: Here}
  bad: {auth_type: telepathy, auth: {auth_url: "http://127.0.0.1:9/v3", username: u, password: p, project_name: p}}
"""


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Plugin]:
    """A plugin that is not configured, in a folder with a clouds.yaml."""
    (tmp_path / "clouds.yaml").write_text(CLOUDS)
    environment = {"OS_CLIENT_CONFIG_FILE": str(tmp_path / "clouds.yaml"), "HOME": str(tmp_path)}
    with Plugin(environment, cwd=tmp_path) as plugin:
        yield plugin


def configure(plugin: Plugin, config: Properties) -> None:
    plugin.call("Configure", provider_pb2.ConfigureRequest(args=marshal(config), acceptSecrets=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no OpenStack cloud is configured"),
        ({"cloud": "goood"}, "Cloud goood was not found"),
        ({"cloud": "bad"}, "the OpenStack configuration is not usable"),
        ({"cluod": "good"}, "openstack:cluod is not a known property; did you mean 'cloud'?"),
        ({"cloud": "good", "insecure": "perhaps"}, "openstack:insecure must be true or false"),
        ({"cloud": "good", "endpointOverrides": "[]"}, "openstack:endpointOverrides must be a map"),
    ],
)
def test_bad_configuration(bare: Plugin, config: Properties, message: str) -> None:
    with pytest.raises(CallError) as caught:
        configure(bare, config)
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_all_faults_of_a_configuration(bare: Plugin) -> None:
    answer = bare.call("CheckConfig", provider_pb2.CheckRequest(news=marshal({"clod": "a", "maxRetries": "many"})))
    assert {failure.property for failure in answer.failures} == {"clod", "maxRetries"}


def test_configuration_keeps_its_text_and_hides_secrets(bare: Plugin) -> None:
    config = {"cloud": "good", "insecure": "true", "password": "hush", "version": "5.5.3"}
    answer = bare.call("CheckConfig", provider_pb2.CheckRequest(news=marshal(config)))
    assert unmarshal(answer.inputs) == {**config, "password": Secret("hush")}


@pytest.mark.parametrize("config", [{"cloud": "good"}, {"authUrl": "http://127.0.0.1:9/v3", "token": "t"}])
def test_unreachable_cloud(bare: Plugin, config: Properties) -> None:
    configure(bare, config)
    for call in (
        lambda: bare.create(NETWORK, {}),
        lambda: bare.import_(NETWORK, "id-1"),
        lambda: bare.invoke("openstack:networking/getNetwork:getNetwork", {"name": "n"}),
    ):
        with pytest.raises(CallError) as caught:
            call()
        message = str(caught.value)
        assert "127.0.0.1" in message
        assert "\n  " in message, "there is a remedy"
        assert "Traceback" not in message
        assert caught.value.partial is None


def test_an_operation_without_configuration(bare: Plugin) -> None:
    with pytest.raises(CallError, match="the provider is not configured"):
        bare.create(NETWORK, {})


def test_configuration_that_is_not_known_yet(bare: Plugin) -> None:
    """A preview of a provider that depends on other resources still checks and previews."""
    configure(bare, {"cloud": UNKNOWN})
    assert bare.preview(NETWORK, {})["mtu"] is UNKNOWN


def test_planted_secrets_do_not_show(bare: Plugin) -> None:
    configure(bare, {"authUrl": "http://127.0.0.1:9/v3", "userName": "u", "tenantName": "p", "password": "planted-one"})
    with pytest.raises(CallError) as caught:
        bare.create(KEYPAIR, {"publicKey": Secret("planted-two")})
    process = Path(f"/proc/{bare.process.pid}")
    shown = [str(caught.value), *(line.message for line in bare.engine.logs), (process / "cmdline").read_text()]
    assert not [text for text in shown if "planted" in text]


def test_preview_of_a_create(offline: Plugin) -> None:
    shown = offline.preview(INSTANCE, {"flavorName": "f", "imageId": UNKNOWN, "adminPass": "hush"}, name="node")
    assert shown["flavorName"] == "f"
    assert shown["adminPass"] == Secret("hush")
    for name in ("imageId", "imageName", "accessIpV4", "networks", "region", "allTags"):
        assert shown[name] is UNKNOWN
    assert "__defaults" not in shown
    assert "userData" not in shown


def test_nested_secrets_stay_secret(offline: Plugin) -> None:
    shown = offline.preview(INSTANCE, {"flavorId": "f", "imageId": "i", "metadata": {"a": "b", "c": Secret("d")}})
    assert shown["metadata"] == {"a": "b", "c": Secret("d")}
    listed = offline.preview(NETWORK, {"tags": ["a", Secret("b")]})
    assert listed["tags"] == Secret(["a", "b"])


def test_protocol_features(offline: Plugin) -> None:
    shake = offline.call("Handshake", provider_pb2.ProviderHandshakeRequest())
    assert (shake.accept_secrets, shake.supports_autonaming_configuration) == (True, True)
    configured = offline.call(
        "Configure", provider_pb2.ConfigureRequest(args=marshal({"authUrl": "http://127.0.0.1:9/v3", "token": "t"}))
    )
    assert (configured.acceptSecrets, configured.supportsPreview) == (True, True)
    assert offline.call("GetPluginInfo", empty_pb2.Empty()).version.count(".") == 2


def test_unknown_function(offline: Plugin) -> None:
    with pytest.raises(CallError, match="did you mean 'openstack:images/getImage:getImage'"):
        offline.invoke("openstack:images/getImag:getImag", {})


def test_import_needs_an_id_of_the_right_form(offline: Plugin) -> None:
    with pytest.raises(CallError, match="'half' is not the id of a volume attachment"):
        offline.import_("openstack:compute/volumeAttach:VolumeAttach", "half")


def test_start_in_a_folder_that_looks_like_ours(tmp_path: Path) -> None:
    """The program's folder may have packages of the same names."""
    for name in ("providers", "openstack", "pulumi"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    with Plugin({"PYTHONPATH": str(tmp_path)}, cwd=tmp_path) as plugin:
        assert plugin.call("GetPluginInfo", empty_pb2.Empty()).version


def test_start_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / EXECUTABLE.name
    link.symlink_to(EXECUTABLE)
    with Plugin({}, executable=link) as plugin:
        assert plugin.call("GetPluginInfo", empty_pb2.Empty()).version


def test_flags_of_the_engine_are_no_address() -> None:
    process = subprocess.Popen([EXECUTABLE, "-v=3", "--logtostderr"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().strip().isdigit()
    process.terminate()
    assert process.wait(timeout=10) == 0
    process.stdout.close()


def test_ctrl_c_is_the_engines_business() -> None:
    with Plugin({}) as plugin:
        os.kill(plugin.process.pid, signal.SIGINT)
        assert plugin.call("GetPluginInfo", empty_pb2.Empty()).version


def test_the_end_of_the_engine_is_the_plugins() -> None:
    with Plugin({}) as plugin:
        plugin.server.stop(0).wait()
        assert plugin.process.wait(timeout=60) == 1
