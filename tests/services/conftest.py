"""The services' packages, as their images have them: on Python's path."""

import sys
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"
for folder in SERVICES.iterdir():
    sys.path.insert(0, str(folder))
