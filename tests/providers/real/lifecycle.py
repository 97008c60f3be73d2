"""One walk through the life of a resource, the same for every type."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from providers.openstack.__main__ import package
from providers.values import UNKNOWN, plain
from tests.providers.plugin import changed, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from providers.values import Properties
    from tests.providers.plugin import Plugin, Resource
    from tests.providers.real.conftest import Maker

TYPES = {kind.token: kind for kind in package().types}


@dataclass(frozen=True)
class Life:
    """What to make of a type, and what to change in it.

    update: inputs that change in place, with the paths that the diff shows. replace: inputs, each of which would
    replace. replacement: inputs that do replace, at the end; none: as if asked for with `--replace`. exclusive: the old
    one must go first. unread: outputs that no cloud tells, so that an import lacks them.
    """

    token: str
    inputs: Properties
    update: Properties = field(default_factory=dict)
    paths: frozenset[str] = frozenset()
    replace: Properties = field(default_factory=dict)
    replacement: Properties = field(default_factory=dict)
    exclusive: bool = False
    unread: frozenset[str] = frozenset()


def live(plugin: Plugin, make: Maker, life: Life, seen: Callable[[Resource], None]) -> Resource:
    """Preview, create, refresh, update, import, replace. ``make`` deletes (twice) at the end of the test.

    ``seen`` asserts what the cloud itself has, after the create, the update and the replacement.
    """
    kind = TYPES[life.token]
    computed = {item.name for item in kind.fields if item.computed or item.output}

    before = plugin.preview(life.token, life.inputs)
    checked = plugin.check(life.token, life.inputs)
    assert {name for name, value in before.items() if plain(value) is UNKNOWN} == computed - set(checked)

    resource = make(life.token, life.inputs)
    assert resource.id
    missing = computed - {name for name, value in resource.outputs.items() if value is not None}
    assert not missing - {"rules"}, "computed outputs without a value"
    assert UNKNOWN not in resource.outputs.values()
    seen(resource)

    refreshed = plugin.read(resource)
    assert refreshed
    assert refreshed.id == resource.id
    assert refreshed.inputs == resource.inputs
    stable = {"updated", "members", "powerState"}
    assert {k: v for k, v in refreshed.outputs.items() if k not in stable} == {
        k: v for k, v in resource.outputs.items() if k not in stable
    }
    assert not changed(plugin.diff(refreshed, life.inputs)), "differs after a refresh"

    if life.update:
        wanted = {key: value for key, value in {**life.inputs, **life.update}.items() if value is not None}
        plan = plugin.diff(resource, wanted)
        assert changed(plan) == life.paths
        assert not plan.replaces
        shown_before = plugin.update(resource, wanted, preview=True)
        resource = make.changed(resource, plugin.update(resource, wanted))
        for key in life.update:
            assert shown(shown_before.outputs).get(key) == shown(shown_before.inputs).get(key)
        assert not changed(plugin.diff(resource, wanted)), "differs after the update"
        seen(resource)
        refreshed = plugin.read(resource)
        assert refreshed
        assert not changed(plugin.diff(refreshed, wanted)), "differs after the update and a refresh"
        life = replace(life, inputs=wanted)

    for key, value in life.replace.items():
        plan = plugin.diff(resource, {**life.inputs, key: value})
        assert list(plan.replaces) == [key]

    imported = plugin.import_(life.token, resource.id)
    assert imported
    assert imported.id == resource.id
    known = {name: value for name, value in shown(resource.outputs).items() if name not in life.unread and value}
    found = shown(imported.outputs)
    assert {name: found.get(name) for name in known} == known
    program = plain(imported.inputs)
    program.pop("__defaults")
    assert not changed(plugin.diff(imported, program)), "an import differs from its own inputs"

    wanted = {**life.inputs, **life.replacement}
    plan = plugin.diff(resource, wanted)
    assert bool(plan.replaces) == bool(life.replacement)
    resource = make.replaced(resource, wanted, delete_first=life.exclusive or plan.deleteBeforeReplace)
    seen(resource)
    return resource
