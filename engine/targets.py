"""Which resources ``--target``, ``--exclude`` and ``--replace`` select."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import EngineError
from .urn import ROOT_STACK_TYPE, qualified_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .goal import UpdateOptions
    from .state import State


class Patterns:
    """URNs and patterns: ``*`` matches within a part of a URN, ``**`` across parts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.literals = [text for text in texts if "*" not in text]
        self._literals = set(self.literals)
        self._patterns = [
            re.compile(re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^:]*")) for text in texts if "*" in text
        ]

    def __bool__(self) -> bool:
        return bool(self._literals or self._patterns)

    def __contains__(self, urn: str) -> bool:
        return urn in self._literals or any(pattern.fullmatch(urn) for pattern in self._patterns)


class Targets:
    """The selection of one operation."""

    def __init__(self, options: UpdateOptions) -> None:
        self._targets = Patterns(options.targets)
        self._target_dependents = options.target_dependents
        self._exclude = Patterns(options.exclude)
        self._exclude_dependents = options.exclude_dependents
        self._replace = Patterns(options.replace)
        self._reached: set[str] = set()
        """Targets that the program has registered."""
        self._excluded: set[str] = set()

    def includes(self, state: State) -> bool:
        """Whether the operation may change a resource."""
        if state.is_provider or qualified_type(state.urn) == ROOT_STACK_TYPE:
            return True
        if self._targets:
            return self.is_target(state)
        return not self.is_excluded(state)

    def is_excluded(self, state: State) -> bool:
        """Whether ``--exclude`` names a resource, or something it depends on."""
        dependent = self._exclude_dependents and any(urn in self._excluded for urn in state.all_dependencies())
        if dependent or state.urn in self._exclude:
            self._excluded.add(state.urn)
            return True
        return False

    def is_target(self, state: State) -> bool:
        """Whether ``--target`` names a resource, or something it depends on."""
        if state.urn in self._targets:
            return True
        return self._target_dependents and any(urn in self._reached for urn in state.all_dependencies())

    def note_registered(self, state: State) -> None:
        """Let ``--target-dependents`` select what depends on this resource, if it is a target."""
        if self._targets and self.is_target(state):
            self._reached.add(state.urn)

    def is_replaced(self, urn: str) -> bool:
        """Whether ``--replace`` names a resource."""
        return urn in self._replace

    def refreshable(self, base: Iterable[State]) -> list[State]:
        """The recorded resources that a refresh reads."""
        selected: list[State] = []
        reached: set[str] = set()
        for state in base:
            dependent = self._target_dependents and any(urn in reached for urn in state.all_dependencies())
            if state.urn in self._targets or dependent if self._targets else not self.is_excluded(state):
                reached.add(state.urn)
                selected.append(state)
        return selected

    def deletable(self, base: Sequence[State]) -> set[str] | None:
        """The URNs that ``--target`` or ``--exclude`` let an update delete; None without either."""
        if self._exclude and not self._targets:
            kept: set[str] = set()
            for state in reversed(base):
                # What an excluded resource needs has to stay as well.
                if state.urn in kept or self.is_excluded(state):
                    kept.update([state.urn, *state.all_dependencies()])
            return {state.urn for state in base} - kept
        if not self._targets:
            return None
        reached = {state.urn for state in base if state.urn in self._targets}
        for state in base:
            if any(urn in reached for urn in state.all_dependencies()):
                reached.add(state.urn)
        return reached

    def is_unasked(self, urn: str) -> bool:
        """Whether a deletion goes beyond the targets, which only ``--target-dependents`` permits."""
        return bool(self._targets) and urn not in self._targets and not self._target_dependents

    def check(self, known: set[str]) -> None:
        """Refuse targets that name nothing; raises :class:`EngineError` naming all of them."""
        _refuse_unknown(
            (*self._targets.literals, *self._exclude.literals),
            known,
            remedy="list the stack's URNs with `lab stack --show-urns`, and quote a URN that has a $ in it",
        )

    def check_replace(self, known: set[str]) -> None:
        """The same for ``--replace``, before anything is done."""
        _refuse_unknown(self._replace.literals, known)


def _refuse_unknown(texts: Iterable[str], known: set[str], *, remedy: str | None = None) -> None:
    unknown = [text for text in texts if text not in known]
    if unknown:
        message = "\n".join(f"Target '{text}' could not be found in the stack." for text in unknown)
        raise EngineError(message, remedy=remedy)
