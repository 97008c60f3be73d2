"""What several networking types share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from providers.openstack.rest import (
    given,
)
from providers.schema import BOOLEAN, STRING, CheckFailure, Field, List

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from providers.values import Properties

ADMIN_STATE_UP: Final = Field("adminStateUp", BOOLEAN, "Whether it forwards traffic; true by default.", computed=True)
ALL_SECURITY_GROUP_IDS: Final = Field(
    "allSecurityGroupIds", List(STRING, unordered=True), "All security groups in effect.", output=True
)
UP_OR_DOWN: Final = frozenset({"ACTIVE", "DOWN"})


def empty_fault(value: str) -> str | None:
    return None if value else "must not be empty"


def needs(inputs: Properties, names: Iterable[str], required: str) -> Iterator[CheckFailure]:
    for name in names:
        if given(inputs, name) and not given(inputs, required):
            yield CheckFailure(name, f"needs {required}, too")
