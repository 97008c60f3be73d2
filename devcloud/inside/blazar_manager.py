"""Blazar's manager. It looks for due leases every 2 seconds, not every 10, since users and tests wait for them."""

# mypy: disable-error-code="import-not-found,import-untyped"
import sys

from blazar.cmd.manager import main  # imported first: it installs eventlet's non-blocking modules
from blazar.manager import service

service.EVENT_INTERVAL = 2
sys.exit(main())
