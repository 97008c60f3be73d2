"""Which recorded resource each resource of the program is: by its URN, or by one that it had before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import EngineError
from .urn import ROOT_STACK_TYPE, make_urn, name_of, project_of, qualified_type, split_reference, type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .goal import Alias, Goal
    from .state import State


class Identity:
    """The recorded resources, and those that the program has registered so far."""

    def __init__(self, project: str, stack: str, resources: Sequence[State]) -> None:
        self._project = project
        self._stack = stack
        self.goals: dict[str, Goal] = {}
        """What the program has registered, by URN."""
        self.aliased: dict[str, str] = {}
        """The new URN of each old one that an alias has matched."""
        self.former: dict[str, str] = {}
        """The old URN of each resource that an alias has matched."""
        self.base: list[State] = []
        self.olds: dict[str, State] = {}
        self.rebase(resources)

    def rebase(self, resources: Sequence[State]) -> None:
        """Take these as the recorded resources, dependencies first."""
        self.base = list(resources)
        self.olds = {state.urn: state for state in resources if not state.delete}

    def claim(self, urn: str, goal: Goal) -> None:
        """Note a registration. Raises EngineError if the URN is taken or the parent is not registered."""
        if goal.parent and goal.parent not in self.goals:
            raise EngineError(f"could not find parent resource {goal.parent}")
        if urn in self.goals:
            raise EngineError(
                f"Duplicate resource URN '{urn}'; try giving it a unique name",
                remedy="two resources of one type and parent need different names",
            )
        self.goals[urn] = goal

    def find_old(self, urn: str, goal: Goal) -> tuple[State | None, str]:
        """The recorded state under the resource's URN, or under an alias of it; and that alias."""
        if (claimant := self.aliased.get(urn)) is not None:
            raise EngineError(f"resource '{urn}' is registered, but '{claimant}' is already aliased to it")
        if old := self.olds.get(urn):
            return old, ""
        for alias in self._alias_urns(goal):
            old = self.olds.get(alias)
            if old is None or alias == urn:
                continue
            if alias in self.goals:
                raise EngineError(f"'{urn}' is aliased to '{alias}', which the program registers as well")
            if (claimant := self.aliased.get(alias)) is not None:
                raise EngineError(f"'{urn}' is aliased to '{alias}', and so is '{claimant}'")
            self.aliased[alias] = urn
            self.former[urn] = alias
            return old, alias
        return None, ""

    def _alias_urns(self, goal: Goal) -> list[str]:
        own = [self._alias_urn(goal, alias) for alias in goal.aliases]
        found = dict.fromkeys(own)
        if goal.parent in self.former:
            former_parent = self.former[goal.parent]
            for alias_urn in ["", *own]:
                type_ = type_of(alias_urn) if alias_urn else goal.type
                name = name_of(alias_urn) if alias_urn else goal.name
                parent_name = name_of(goal.parent)
                if name.startswith(parent_name):
                    name = name_of(former_parent) + name.removeprefix(parent_name)
                # An alias of the parent may come from another project, as far as the chain of types goes.
                found[make_urn(self._stack, project_of(former_parent), former_parent, type_, name)] = None
        return list(found)

    def _alias_urn(self, goal: Goal, alias: Alias) -> str:
        if alias.urn:
            return alias.urn
        parent = goal.parent
        if alias.parent:
            parent = self.former.get(alias.parent, alias.parent)
        if alias.no_parent or (parent and qualified_type(parent) == ROOT_STACK_TYPE):
            parent = ""
        return make_urn(
            alias.stack or self._stack,
            alias.project or self._project,
            parent,
            alias.type or goal.type,
            alias.name or goal.name,
        )

    def find_provider(self, reference: str, news: Iterable[State] = ()) -> State | None:
        """The state of the provider that a reference names, among the recorded and the new states."""
        urn, id_ = split_reference(reference)
        # A resource that is still to be deleted refers to an aliased provider by its old URN.
        for state in (*self.base, *news):
            if state.id == id_ and (state.urn == urn or urn in state.aliases or self.aliased.get(urn) == state.urn):
                return state
        return None
