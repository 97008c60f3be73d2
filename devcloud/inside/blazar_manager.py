"""Blazar's manager, which looks for due leases every 2 seconds, not every 10: here somebody waits for them."""

# mypy: disable-error-code="import-not-found,import-untyped"
import sys

from blazar.cmd.manager import main  # the first import: it lets eventlet replace what blocks
from blazar.manager import service

service.EVENT_INTERVAL = 2
sys.exit(main())
