"""Entry point: `./lab` runs this file by its path, from any directory."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from cli.app import main

    main()
