"""Wrong configurations: what is changed in a good one, and the expected error."""

from tests.infra.wrong import addresses, machines, platform_parts, values
from tests.infra.wrong.base import (
    GOOD,
    NOW,
    PLATFORM,
    PUBLIC_KEY,
    Wrong,
    configuration,
    second_place,
    write_key_files,
)

__all__ = [
    "GOOD",
    "NOW",
    "PLATFORM",
    "PUBLIC_KEY",
    "WRONG",
    "Wrong",
    "configuration",
    "second_place",
    "write_key_files",
]

WRONG = [*values.WRONG, *addresses.WRONG, *platform_parts.WRONG, *machines.WRONG]
