"""Shows the events that come on standard input, one JSON object a line; the word `crash` raises an error."""

from __future__ import annotations

import json
import sys

from cli.display import make_display


def main() -> None:
    flags = json.loads(sys.argv[1])
    defaults = {
        "json": False, "interactive": None, "diff": False, "color": "auto", "show_sames": False, "stack": "dev",
        "project": "lab", "dry_run": False,
    }  # fmt: skip
    display = make_display("update", **(defaults | flags))
    for line in sys.stdin:
        if line == "crash\n":
            raise RuntimeError("crashed")
        display(json.loads(line))
    display.close()


if __name__ == "__main__":
    main()
