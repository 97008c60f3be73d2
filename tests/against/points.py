"""Reported faults, and the cases that are tried of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tests.against.checkout import Checkout


@dataclass(frozen=True)
class Case:
    """One case of a fault's kind, as it came out."""

    name: str
    wrong: str = ""
    """What was seen instead of the right thing."""


Cases: TypeAlias = Iterator[Case]


@dataclass
class Tried:
    """Collects cases: what fails inside `of(name)` is what the commit gets wrong."""

    cases: list[Case] = field(default_factory=list)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """A case of that name. An AssertionError says that it is wrong; any other error ends the point."""
        try:
            yield
        except AssertionError as error:
            self.cases.append(Case(name, (str(error).strip() or "not so").splitlines()[0]))
        else:
            self.cases.append(Case(name))


@dataclass(frozen=True)
class Point:
    """A reported fault."""

    number: str
    """In the report."""
    fault: str
    tries: Callable[[Checkout, Tried], None]
    cluster: bool = False
    """Whether it needs an API server of the bundle."""

    def on(self, checkout: Checkout) -> list[Case]:
        """Its cases on a checkout."""
        tried = Tried()
        self.tries(checkout, tried)
        return tried.cases
