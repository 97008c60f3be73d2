"""What the forge takes on the cluster, for the settings of a stack."""

from __future__ import annotations

import base64
import json

import kubeyaml
from infra import forge
from infra.manifests import TREE
from infra.settings import Settings, load_settings
from tests.infra.wrong import NOW, PLATFORM, configuration


def settings(wanted: str) -> Settings:
    return load_settings(configuration(f"{{{PLATFORM}: {wanted}}}"), now=NOW, stack="lab")


def test_without_the_setting_there_is_nothing() -> None:
    for wanted in ("{}", "{profile: production}"):
        assert not forge.wanted(settings(wanted))
        assert forge.passwords(settings(wanted)) == []
        assert forge.secrets(settings(wanted), {}, monitored=True) == {}


def test_every_user_has_a_password_and_none_has_anothers() -> None:
    wanted = settings("{forge: {users: [ada, grace]}}")
    names = forge.passwords(wanted)
    assert [name for name in names if "user" in name] == ["forge-user-admin", "forge-user-ada", "forge-user-grace"]
    assert len(set(names)) == len(names)


def test_as_many_jobs_run_as_are_wanted() -> None:
    files = sorted((TREE / forge.FOLDER / "jobs").glob("*.yaml"))
    objects = [one for path in files for one in kubeyaml.read_documents(path.read_text()) if one and "kind" in one]
    before = json.dumps(objects)
    changed = forge.adapted(objects, settings("{forge: {jobs: 7}}"))
    (keeper,) = (one for one in changed if one["kind"] == "Deployment")
    assert keeper["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "JOBS", "value": "7"}]
    (quota,) = (one for one in changed if one["kind"] == "ResourceQuota")
    (template,) = (one for one in changed if one["kind"] == "PodTemplate")
    memory = template["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    room = int(quota["spec"]["hard"]["limits.memory"].removesuffix("Gi"))
    assert room > 7 * int(memory.removesuffix("Gi"))
    assert int(quota["spec"]["hard"]["pods"]) > 10
    assert json.dumps(objects) == before


def test_the_key_of_tokens_has_the_form_that_gitea_reads() -> None:
    key = forge._key("a" * 32)
    assert len(base64.urlsafe_b64decode(key + "=")) == 32
    assert key != forge._key("b" * 32)
