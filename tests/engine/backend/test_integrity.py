"""No damaged state is ever written; what is out of order is put in order."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from engine.backend import open_backend
from engine.integrity import StateIntegrityError, in_order, problems
from tests.engine.backend.test_backend import BASE, STACK, begin, deployment, entry, record, urns

if TYPE_CHECKING:
    from pathlib import Path


def dependent(number: int, *needs: int) -> dict[str, Any]:
    return record(number) | {"dependencies": [record(each)["urn"] for each in needs]}


def test_no_damaged_state_is_written(url: str) -> None:
    backend = open_backend(url)
    backend.create_stack("sample", "dev")
    broken = deployment(STACK, dependent(2, 1), dependent(1))
    with pytest.raises(StateIntegrityError, match="thing-1 comes after it"):
        backend.save("sample", "dev", broken)
    with backend.lock("sample", "dev", "up"), begin(backend) as update:
        update.append(BASE).result()
        update.append(entry(1)).result()
        with pytest.raises(StateIntegrityError, match="not written"):
            update.finish(broken, result="succeeded", changes={})
    assert urns(backend) == [record(1)["urn"]], "the journal is kept"
    backend.save("sample", "dev", broken, check=False)
    assert urns(backend) == [STACK["urn"], record(2)["urn"], record(1)["urn"]]


def test_order_is_kept_where_it_is_good_and_made_where_it_is_not() -> None:
    shuffle = random.Random(16)  # noqa: S311
    for size in range(2, 40):
        good = [dependent(n, *sorted({shuffle.randrange(n) for _ in range(min(n, 3))})) for n in range(size)]
        good += [dependent(n) | {"delete": True} for n in range(0, size, 4)]
        assert in_order(good) == list(range(len(good)))
        mixed = good[:]
        shuffle.shuffle(mixed)
        assert not list(problems([mixed[index] for index in in_order(mixed)]))


def test_a_long_list_of_faults_is_short(tmp_path: Path) -> None:
    broken = [STACK, *(dependent(n, n + 1) for n in range(300))]
    backend = open_backend(f"file://{tmp_path}")
    backend.create_stack("sample", "dev")
    with pytest.raises(StateIntegrityError) as caught:
        backend.save("sample", "dev", {"version": 3, "deployment": {"resources": broken}})
    assert len(str(caught.value).splitlines()) == 12
    assert "and 290 more" in str(caught.value)
