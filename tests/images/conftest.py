"""The platform's images, from the bundle, and a runtime to run them with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bundle.cli import DEFAULT
from bundle.store import Store
from tests.images.containers import Runtime, program

if TYPE_CHECKING:
    from collections.abc import Iterator
