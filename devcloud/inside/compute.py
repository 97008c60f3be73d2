"""nova-compute with devcloud's container driver beside nova's own drivers."""

# mypy: disable-error-code="import-not-found,import-untyped"
import sys
from pathlib import Path

import nova.monkey_patch
import nova.virt
from nova.cmd.compute import main

# Nova loads drivers from this package only.
nova.virt.__path__.append(str(Path(__file__).parent))
sys.argv[0] = "nova-compute"
sys.exit(main())
