"""The readers of what others write, on thousands of made-up inputs: no crash, and what is read is what was written.

Hypothesis makes the inputs from a fixed seed, so that every run tries the same.
"""

from __future__ import annotations

import contextlib
import copy
import json
import string
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import snapshot as snapshots
from engine.backend import open_backend
from engine.checkpoint import parse
from engine.errors import EngineError
from engine.integrity import import_problems, in_order, problems
from engine.paths import covers, parse_path, reset
from engine.project import Project, StackConfig
from engine.state import Codec
from engine.values import contains_secret, equal, reveal, transform
from protocol.signatures import SECRET_SIG, SIG
from protocol.values import from_wire, is_secret, secret, to_wire
from tests.engine.backend.reference.scalars.make import COUNT as SCALAR_COUNT
from tests.engine.backend.reference.scalars.make import HERE as SCALARS
from tests.engine.test_state import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.secrets import SecretsManager


def fuzz(cases: int = 1000) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on that many cases, the same ones every time."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = settings(max_examples=cases, derandomize=True, deadline=None, database=None)(test)
        test.cases = cases  # type: ignore[attr-defined]
        return test

    return decorate


class Plain:
    """Secrets in a form that a test can look into: every text backwards."""

    type = "test"

    def encrypt(self, plaintext: str) -> str:
        return plaintext[::-1]

    def decrypt(self, ciphertext: str) -> str:
        return ciphertext[::-1]

    def state(self) -> dict[str, Any]:
        return {}


PLAIN: SecretsManager = Plain()
EXPORTED = transform(
    json.loads((FIXTURES / "options.json").read_text())["deployment"],
    lambda part: part | {"ciphertext": PLAIN.encrypt('"x"')} if is_secret(part) else part,
)

numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
leaves = st.none() | st.booleans() | numbers | texts
keys = st.sampled_from(["a", "b", "a.b", "", '"', "[0]", "__defaults"]) | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | inner.map(secret),
    max_leaves=8,
)
properties = st.dictionaries(keys, values, max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    cases = getattr(request.function, "cases", SCALAR_COUNT)
    record_property("figures", f"fuzz, {request.node.name}: {cases} cases, from a fixed seed")


# --- the stack file


def read(text: str) -> dict[str, str]:
    """The values of a stack file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Pulumi.yaml").write_text("name: sample\nruntime: python\n")
        (Path(folder) / "Pulumi.dev.yaml").write_text(text, encoding="utf-8")
        return StackConfig.load(Project.find(Path(folder)), "dev").decrypt_all(None)[0]


def test_scalars_are_what_the_clis_reader_makes_of_them() -> None:
    rows = json.loads((SCALARS / "scalars.json").read_text())
    lines = []
    for number, (text, kind, _) in enumerate(rows):
        lines.append(
            f"  k{number}: {'not finite' if kind == 'float64' and text.strip('+-')[1:4].isalpha() else text}\n"
        )
    found = read("config:\n" + "".join(lines))
    for number, (text, kind, value) in enumerate(rows):
        mine = found[f"sample:k{number}"]
        if kind == "float64" and value in {"+Inf", "-Inf", "NaN"}:
            continue
        if kind == "float64":
            assert float(mine) == float(value), text
        else:
            assert mine == ("" if value is None else value), (text, kind)
    assert len(rows) == SCALAR_COUNT


yaml_pieces = st.sampled_from(
    [
        *"&*!|>'\"%@`{}[],:?-#~ \n\t\\",
        "config:",
        "  sample:",
        "a: ",
        "- ",
        "<<: ",
        "&x ",
        "*x",
        "!!int ",
        "!!float ",
        "!!str ",
        "!!timestamp ",
        "!!binary ",
        "!!null ",
        "!!bool ",
        "!t ",
        "secure: ",
        "61e9540",
        "0x",
        "2026-01-01",
        "---\n",
        "...\n",
        "encryptionsalt: ",
        "\u2028",
        "\x00",
        "\\U00110000",
        "\ufeff",
        "%YAML 1.1\n",
        "'",
        "|\n  ",
        ">\n  ",
        "? ",
        "é",
    ]
)
yaml_texts = st.lists(yaml_pieces | st.text(string.printable, max_size=4), max_size=14).map("".join)


@fuzz(300)
@given(yaml_texts)
def test_a_stack_file_is_read_or_refused(text: str) -> None:
    for content in (text, f"config:\n  sample:k: {text}\n", f"config:\n  k: [{text}]\n"):
        try:
            found = read(content)
        except EngineError:
            continue
        assert all(isinstance(value, str) for value in found.values())


@fuzz(200)
@given(st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), texts, max_size=3))
def test_what_is_set_is_read_again(entries: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Pulumi.yaml").write_text("name: sample\nruntime: python\n")
        project = Project.find(Path(folder))
        config = StackConfig.load(project, "dev")
        for key, value in entries.items():
            config.set(key, value)
            config.set(f"{key}x.list[0]", value, path=True)
        config.save()
        again = StackConfig.load(project, "dev")
        for key, value in entries.items():
            found = again.get(key)
            assert found is not None
            assert found.value == value
        assert again.items() == config.items()


COMMENTED = """\
# The lab of spring.
config:
  sample:nodes: # by group
    control: # one, or three
      count: 3
    # They carry the load.
    worker: {count: 2, labels: [a, b]} # more of them
  sample:ranges: # who may come
    - 10.0.0.0/8 # the campus

    # The lab.
    - [192.0.2.0/24, 198.51.100.0/24]
  sample:empty: []
"""
PATHS = [
    *("nodes", "nodes.control", "nodes.control.count", "nodes.worker", "nodes.worker.count"),
    *("nodes.worker.labels[0]", "nodes.worker.labels[1]"),
    *("ranges[0]", "ranges[1]", "ranges[1][0]", "ranges[0][1]", "empty[0]"),
]


@fuzz(200)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.booleans()), max_size=8))
def test_edits_of_a_commented_file_leave_one_that_reads_the_same(edits: list[tuple[str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Pulumi.yaml").write_text("name: sample\nruntime: python\n")
        (Path(folder) / "Pulumi.dev.yaml").write_text(COMMENTED)
        project = Project.find(Path(folder))
        for path, is_set in edits:
            config = StackConfig.load(project, "dev")
            with contextlib.suppress(EngineError):
                if is_set:
                    config.set(path, "x", path=True)
                else:
                    config.remove(path, path=True)
            config.save()
            assert StackConfig.load(project, "dev").items() == config.items()


# --- the state


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A deployment of which a few parts are something else, are gone or are there twice."""
    deployment = copy.deepcopy(EXPORTED)
    for _ in range(draw(st.integers(1, 3))):
        part: Any = deployment
        while True:
            places = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(part[place], dict | list) and draw(st.integers(0, 4)):
                part = part[place]
                continue
            match draw(st.integers(0, 3)):
                case 0:
                    del part[place]
                case 1 if isinstance(part, list):
                    part.append(copy.deepcopy(part[place]))
                case 2:
                    signed = {SIG: draw(st.sampled_from([SECRET_SIG, "", 5])), "ciphertext": draw(json_values)}
                    part[place] = draw(
                        st.sampled_from([signed, {SIG: SECRET_SIG}, "urn:pulumi:dev::x", [], {}, "", None])
                    )
                case _:
                    part[place] = draw(json_values)
            break
    return deployment


@fuzz()
@given(damaged())
def test_a_state_is_read_or_refused(deployment: Any) -> None:
    try:
        checked = parse(deployment)
        inner = checked["deployment"]
        records = inner.get("resources") or []
        list(import_problems(inner, "conformance", "dev"))
        states, pending = snapshots.load(checked, Codec(PLAIN))
        written = snapshots.Snapshot(states, pending, Codec(PLAIN), None).checkpoint(PLAIN)
    except EngineError:
        return
    again = json.loads(json.dumps(written))
    parse(again)
    assert sorted(r["urn"] for r in again["deployment"].get("resources", [])) == sorted(r["urn"] for r in records)
    if not list(problems(records)):
        assert in_order(records) == list(range(len(records)))
        assert not list(problems(again["deployment"].get("resources", [])))


@fuzz(400)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | damaged().map(lambda d: json.dumps(d).encode()))
def test_a_checkpoint_file_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        backend = open_backend(f"file://{folder}")
        backend._has_meta = True
        place = Path(folder) / ".pulumi" / "stacks" / "sample"
        place.mkdir(parents=True)
        for data in (content, b'{"version": 3, "checkpoint": {"latest": ' + content + b"}}"):
            (place / "dev.json").write_bytes(data)
            for read_it in (lambda: backend.load("sample", "dev"), backend.list_stacks):
                with contextlib.suppress(EngineError):
                    read_it()


# --- values


@fuzz()
@given(properties)
def test_values_survive_the_checkpoint(given_properties: dict[str, Any]) -> None:
    codec = Codec(PLAIN)
    record = json.loads(json.dumps(codec.encode_value(given_properties)))
    again = Codec(PLAIN).decode_value(record)
    assert equal(reveal(again), reveal(given_properties))
    assert codec.encode_value(again) == record
    assert contains_secret(again) == contains_secret(given_properties)


@fuzz()
@given(properties)
def test_values_survive_the_wire(given_properties: dict[str, Any]) -> None:
    assert equal(from_wire(to_wire(given_properties)), given_properties)


@fuzz()
@given(values, values)
def test_equality_is_that_of_json(left: Any, right: Any) -> None:
    assert equal(left, copy.deepcopy(left))
    one, other = (json.dumps(value, sort_keys=True) for value in (left, right))
    if one == other:
        assert equal(left, right)
    if equal(left, right):
        assert json.loads(one) == json.loads(other)
    assert equal(left, right) == equal(right, left)


# --- paths


@fuzz()
@given(st.text(max_size=12) | st.lists(st.sampled_from([*'ab.[]"*\\0', "[0]", '["', '"]']), max_size=10).map("".join))
def test_a_path_is_parsed_or_refused(text: str) -> None:
    try:
        path = parse_path(text)
    except EngineError:
        return
    assert path
    assert covers(path, path)
    written = "".join(
        f"[{part}]" if isinstance(part, int) else f"[{json.dumps(part, ensure_ascii=False)}]" for part in path
    )
    if not any(isinstance(part, str) and any(ord(c) < 32 for c in part) for part in path):
        assert parse_path(written) == path


paths = st.lists(st.sampled_from(["a", "b", "*", 0, 1, "a.b"]), min_size=1, max_size=3).map(tuple)
small = st.recursive(
    st.integers(0, 3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2) | inner.map(secret)
    ),
    max_leaves=6,
)


@fuzz()
@given(
    st.lists(paths, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from("ab"), small),
    st.dictionaries(st.sampled_from("ab"), small),
)
def test_ignored_changes_are_those_of_the_path(ignored: list[Any], old: dict[str, Any], new: dict[str, Any]) -> None:
    before, result = copy.deepcopy(old), copy.deepcopy(new)
    matched = [reset(path, old, result) for path in ignored]
    assert equal(old, before), "the old inputs are only read"
    for path, done in zip(ignored, matched, strict=True):
        if done and "*" not in path:
            assert look(result, path) == look(old, path)
    kept = {path[0] for path in ignored}
    for key in {*new, *result} - kept if "*" not in kept else ():
        assert equal(new[key], result[key]), "other properties are the program's"
    again = copy.deepcopy(result)
    for path in ignored:
        reset(path, old, again)
    assert equal(reveal(again), reveal(result)), "once is enough"
    json.dumps(result, sort_keys=True)
    assert plain_texts(result) <= plain_texts(old) | plain_texts(new), "no secret is laid open"


def look(value: Any, path: tuple[str | int, ...]) -> Any:
    """What is at a path without secrets, ... for nothing."""
    value = reveal(value)
    for part in path:
        places = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if part not in places:
            return ...
        value = places[part]
    return value


def plain_texts(value: Any) -> set[str]:
    """The numbers outside of secrets, as texts."""
    if is_secret(value):
        return set()
    if isinstance(value, dict | list):
        return set().union(*map(plain_texts, value.values() if isinstance(value, dict) else value))
    return {json.dumps(value)}
