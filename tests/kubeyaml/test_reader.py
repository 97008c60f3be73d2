"""Manifests are read as the kubectl of the bundle reads them, spelling by spelling."""

from __future__ import annotations

import json
import os
import random
import subprocess
from typing import Any

import pytest

import kubeyaml
from tests.providers.kubernetes.control_plane import program

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
WRITTEN = """
    = 1:30 1:30:45.5 190:20:30 yes Yes no NO on ON off Off y Y n N true TRUE tRUE ~ null Null NULL nil
    0 -0 00 012 -012 +012 08 09.5 0o14 0O14 0o8 0o 0x1F 0X1F 0x_1F 0x 0xFFFFFFFFFFFFFFFF 0x1p4 0b101 -0b101 0B101 0b2
    1_000 1__0 1_ _1 0_8 1_0.5 +1 -1 1. 1.0 1.10 .5 -.5 +.5e1 ._5 5._ 1.e3 1e3 1E3 1e 1e+3 1.5e3 1e400 1p4 0.1e-7
    9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615
    18446744073709551616 12345678901234567890 100000000000000000000 1e20 1e21 123456789.123456789 1,000
    2026-01-02 2026-01-02T03:04:05Z 2001-12-14t21:59:43.10-05:00 inf nan Infinity http://x:80/y
    'yes' "012" '1:30' "=" !!str !foo &anchor
"""
SPELLINGS = WRITTEN.split()
TAGGED = (
    "!!str 3",
    "!!str yes",
    '!!int "3"',
    "!!int 0o14",
    "!!float 3",
    "!!float 1_0",
    "!!bool yes",
    "!!bool 'yes'",
    "!!null ~",
    "!!null ''",
    "!!binary aGk=",
    "!!binary /w==",
    "!!timestamp 2026-01-02",
    "!foo 1",
    "!<tag:yaml.org,2002:str> 1",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1, a: 2]",
    "!!str {a: 1}",
    "2001-12-14 21:59:43.10 -5",
)
DOCUMENTS = {
    "a key twice": f"{HEAD}v: {{a: 1, a: 2}}\n",
    "a key twice at the top": f"{HEAD}v: 1\nv: 2\n",
    "a merge before": f"{HEAD}v: {{<<: {{a: 1, b: 1}}, a: 2}}\n",
    "a merge after": f"{HEAD}v: {{a: 2, <<: {{a: 1, b: 1}}}}\n",
    "a merge of a list": f"{HEAD}v: {{<<: [{{a: 1}}, {{a: 2, c: 3}}], d: 4}}\n",
    "a merge of an anchor": f"x: &x {{a: 1, l: [1]}}\n{HEAD}v: {{<<: *x, b: 2}}\n",
    "two merges": f"{HEAD}v: {{<<: {{a: 1}}, <<: {{a: 2}}}}\n",
    "a merge in a merge": f"{HEAD}v: {{<<: {{<<: {{a: 1}}, b: 2}}, c: 3}}\n",
    "a merge by its tag": f"{HEAD}v: {{!!merge <<: {{a: 1}}}}\n",
    "no merge": f"{HEAD}v: {{'<<': {{a: 1}}, !!str <<: 1}}\n",
    "several documents": f"---\n---\n# none\n---\n{HEAD}v: 1\n...\n--- # another\n{HEAD}v: 2\n---\n",
    "blocks": f"{HEAD}v:\n- |\n  yes\n  no\n- >-\n  a\n  b\n- plain\n  text\n",
    "flow": f'{HEAD}v: {{"a":1, b, c: , d:1}}\n',
    "a byte order mark": f"\ufeff{HEAD}v: 1\n",
    "lines of Windows": f"{HEAD}v: |\n  a\n  b\n".replace("\n", "\r\n"),
    "JSON": '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "v": [1e2, 1.0, true, null]}',
}
REFUSED = {
    "infinity": f"{HEAD}v: .inf\n",
    "no number": f"{HEAD}v: .nan\n",
    "a key that is null": f"{HEAD}v: {{~: 1}}\n",
    "a key that is a list": f"{HEAD}v: {{[a]: 1}}\n",
    "a key of 64 bits": f"{HEAD}v: {{18446744073709551615: 1}}\n",
    "a merge of no map": f"{HEAD}v: {{<<: 1}}\n",
    "a value in itself": f"{HEAD}v: &x {{a: *x}}\n",
    "an unknown anchor": f"{HEAD}v: *x\n",
    "aliases of aliases": "".join(
        f"a{number}: &a{number} [{', '.join([f'*a{number - 1}' if number else 'x'] * 10)}]\n" for number in range(7)
    )
    + HEAD,
    "a tab": f"{HEAD}v:\n\t a: 1\n",
    "a tag that does not fit": f"{HEAD}v: !!int 1:30\n",
    "another one": f"{HEAD}v: !!bool x\n",
    "no base64": f"{HEAD}v: !!binary '*'\n",
    "a bad character": f"{HEAD}v: @a\n",
}


class RefusedError(Exception):
    """kubectl refused a text; its reason."""


def of_kubectl(text: str) -> list[Any]:
    """The member `v` of each object that kubectl reads. Raises RefusedError."""
    command = [str(program("kubernetes", "kubectl")), "label", "--local", "--output=json", "--filename=-", "read=yes"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RefusedError(done.stderr)
    decoder, rest, found = json.JSONDecoder(), done.stdout.strip(), []
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document.get("v"))
        rest = rest[end:].lstrip()
    return found


def of_ours(text: str) -> list[Any]:
    return [document.get("v") for document in kubeyaml.read_documents(text)]


def exact(value: Any) -> Any:
    """A value whose type is seen in a comparison. kubectl prints large floats with zeros for what they do not hold."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        value = float(value)
    return value if isinstance(value, str) else f"{type(value).__name__} {value!r}"


def compared(spellings: list[str], form: str) -> None:
    """Both readers on a list of items, one a spelling."""
    text = f"{HEAD}v:\n" + "".join(form.format(spelling) for spelling in spellings)
    (theirs,), (ours,) = of_kubectl(text), of_ours(text)
    assert len(theirs) == len(ours) == len(spellings)
    differing = {
        spelling: (exact(left), exact(right))
        for spelling, left, right in zip(spellings, theirs, ours, strict=True)
        if exact(left) != exact(right)
    }
    assert not differing, "kubectl's, ours"


@pytest.mark.slow_cluster
def test_values() -> None:
    compared([*SPELLINGS, *TAGGED, ""], "- {}\n")


@pytest.mark.slow_cluster
def test_keys() -> None:
    wide = {word for word in SPELLINGS if word.isdecimal() and 2**63 <= int(word) < 2**64} | {"0xFFFFFFFFFFFFFFFF"}
    refused = {"~", "null", "Null", "NULL", "&anchor"} | wide
    compared([word for word in SPELLINGS if word not in refused], "- ? {}\n  : 1\n")


@pytest.mark.slow_cluster
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_spelt(seed: int) -> None:
    """Thousands of plain scalars, made of what numbers, times and booleans are made of."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    alphabet = "0123456789" * 2 + "00__..::--++eExXoObBaAfFyYnNtT~=<>"
    made = {"".join(dice.choices(alphabet, k=dice.randint(1, 7))) for _ in range(8000)}
    plain = [
        text
        for text in sorted(made)
        if text[0] not in ">:" and not text.endswith(":") and text.strip("-") and not text.startswith("<<")
    ]
    compared(plain, "- {}\n")


@pytest.mark.slow_cluster
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str) -> None:
    assert exact(of_ours(DOCUMENTS[name])) == exact(of_kubectl(DOCUMENTS[name]))


@pytest.mark.slow_cluster
@pytest.mark.parametrize("name", REFUSED)
def test_what_kubectl_refuses(name: str) -> None:
    with pytest.raises(RefusedError, match="error parsing STDIN"):
        of_kubectl(REFUSED[name])
    with pytest.raises(kubeyaml.YamlError):
        kubeyaml.read_documents(REFUSED[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- =", ["="]),
        ("- 1:30", ["1:30"]),
        ("- 2026-01-02", ["2026-01-02"]),
        ("- 012\n- 0o14", [10, 12]),
        ("yes: on", {"true": True}),
        ("1.0: 1.0", {"1": 1}),
    ],
)
def test_without_a_kubectl(text: str, expected: Any) -> None:
    (found,) = kubeyaml.read_documents(text)
    assert exact(found) == exact(expected)


def test_a_refusal_says_where() -> None:
    with pytest.raises(kubeyaml.YamlError, match=r"^line 2, column 4: \.inf is no number of JSON$"):
        kubeyaml.read_documents("a: 1\nb: .inf\n")
