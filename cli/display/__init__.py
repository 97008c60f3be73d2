"""Shows engine events: a live tree on a terminal, plain lines elsewhere, full diffs, or JSON.

Events are dicts in the JSON form of Pulumi's `apitype.EngineEvent`, so the same display serves the embedded engine and
the Pulumi CLI's event log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.text import Text

from cli.display.base import Display, Result, is_internal
from cli.display.diff import DiffDisplay, DiffRenderer
from cli.display.events import JsonStream, PreviewDigest
from cli.display.model import Model, Options
from cli.display.plain import PlainDisplay
from cli.display.tree import TreeDisplay
from terminal.text import is_interactive, is_terminal, open_console

__all__ = ["Display", "Result", "make_display", "print_details"]


def make_display(
    kind: str,
    *,
    json: bool,
    interactive: bool | None,
    diff: bool,
    color: str,
    show_sames: bool,
    stack: str,
    project: str,
    dry_run: bool,
    out: TextIO | None = None,
    errors: TextIO | None = None,
    show_config: bool = False,
    show_reads: bool = False,
    show_replacement_steps: bool = False,
    show_full_output: bool = False,
    suppress_outputs: bool = False,
) -> Display:
    """Create the display for an operation. It starts immediately; the caller must close it.

    `kind` is `preview`, `update`, `refresh`, `destroy` or `import`. `interactive` None means interactive if `out` is
    a terminal and `CI` is not set; a terminal that can't move its cursor (`TERM=dumb`) always gets plain lines.
    `color` is `auto`, `always`, `never` or `raw`. `out` and `errors` default to standard output and error. The other
    flags are the Pulumi CLI's flags of the same names.
    """
    out, errors = out or sys.stdout, errors or sys.stderr
    options = Options(
        stack=stack,
        project=project,
        kind=kind,
        dry_run=dry_run or kind == "preview",
        show_sames=show_sames,
        show_config=show_config,
        show_reads=show_reads,
        show_replacement_steps=show_replacement_steps,
        show_full_output=show_full_output,
        suppress_outputs=suppress_outputs,
    )
    if json:
        streamed = os.environ.get("PULUMI_ENABLE_STREAMING_JSON_PREVIEW", "").lower() in ("1", "true")
        if options.dry_run and not streamed:
            return PreviewDigest(options, out)
        return JsonStream(out, color=color in ("always", "raw"))
    if diff:
        return DiffDisplay(
            options,
            open_console(out, color=color, interactive=False),
            open_console(errors, color=color, interactive=False),
        )
    live = is_interactive(out) if interactive is None else interactive and is_terminal(out)
    console = open_console(out, color=color, interactive=live)
    return TreeDisplay(Model(options), console) if live else PlainDisplay(Model(options), console)


def print_details(events: Iterable[dict[str, Any]], *, color: str = "auto", out: TextIO | None = None) -> None:
    """Print the full property diffs of a preview's events, as `details` at the Pulumi CLI's prompt does."""
    out = out or sys.stdout
    console = open_console(out, color=color, interactive=False)
    renderer = DiffRenderer(Options(stack="", project="", dry_run=True, show_full_output=True), unchanged=False)
    for event in events:
        if not is_internal(event) and (lines := renderer.render(event)):
            console.print(Text("\n").join(lines))
