"""Filters the output of a Job: shows the program's own lines, not those of libraries.

`lab logs` shows all lines.
"""

from __future__ import annotations

import json
import re

LIBRARIES = (
    "absl|alembic|asyncio|boto3|botocore|datasets|dvc|dvc_\\w+|filelock|fsspec|git|huggingface_hub|matplotlib|mlflow|"
    "numexpr|onnx\\w*|PIL|s3fs|s3transfer|scmrepo|sklearn|skops|tensorflow|torch|transformers|urllib3"
)
NOISE = re.compile(
    "|".join(
        (
            r".*\d+%\|.*",  # a progress bar of tqdm
            r".*\d+(\.\d+)?(it/s|s/it|B/s)\]?$",
            rf"[^a-zA-Z]*\b(DEBUG|INFO|WARNING)\b:? *\[?({LIBRARIES})\b.*",
            r".*/(site|dist)-packages/.*\.py:\d+: \w*Warning: .*",
            r".*/lib/python3[.\d]*/\w+\.py:\d+: \w*Warning: .*",
            r"(\[rank\d+\]:)?\[?[IW]\d{4} \d\d:\d\d:\d\d.*",  # torch's own log
            r"\*{10,}",
            r"Setting OMP_NUM_THREADS .*",
            r"\W* ?View (run|experiment) .*https?://.*",  # MLflow
            r"(Successfully registered model|Registered model|Created version) '.*",
        )
    )
)
WARNING = re.compile(r".*\.py:\d+: \w*Warning: ")


class JobLog:
    """The output of one pod, as it grows."""

    def __init__(self) -> None:
        self.hidden = 0
        """Number of lines left out."""
        self._seen = 0
        self._warning = False

    def more(self, text: str, *, ended: bool) -> list[str]:
        """New lines to show; `text` is the whole output of the pod so far.

        Incomplete lines are held back until the pod has `ended`.
        """
        end = len(text) if ended else text.rfind("\n") + 1
        new, self._seen = text[self._seen : end], max(end, self._seen)
        return [line for line in map(self._matters, new.split("\n")) if line]

    def _matters(self, line: str) -> str:
        # Drop text that a carriage return overwrites on a terminal.
        line = line.rstrip("\r").rpartition("\r")[2].rstrip()
        if not line:
            return ""
        source = self._warning and line[0].isspace()  # the line of code that a warning came from
        if source or NOISE.fullmatch(line) or _is_result(line):
            self._warning = source or WARNING.match(line) is not None
            self.hidden += 1
            return ""
        self._warning = False
        return line


def _is_result(line: str) -> bool:
    """Whether a line is the program's result, which is printed at the end."""
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
