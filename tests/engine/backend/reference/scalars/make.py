"""Write ``scalars.json``: what Go's yaml.v3, with which the Pulumi CLI reads stack files, makes of plain scalars.

Numbers, times and words, good and just wrong, from one seed. With Go on PATH run
``python -m tests.engine.backend.reference.scalars.make``.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SEED = 16
COUNT = 2000
WORDS = ["true", "True", "TRUE", "tRue", "yes", "no", "on", "null", "Null", "NULL", "~", "<<", "=", "y", "n"]
ODD = [
    "0",
    "1",
    "7",
    "8",
    "9",
    "-",
    "+",
    ".",
    "e",
    "E",
    "_",
    "0x",
    "0o",
    "0b",
    "A",
    ":",
    "T",
    "Z",
    "2026",
    "-01",
    "-31",
    "inf",
    "NaN",
    ".5",
    "e5",
    "e400",
    "61e9540",
    "+01:00",
    ",5",
    "12:30:00",
    "00",
    "08",
]
TIMES = {
    "year": ["2026", "0000", "0001", "9999", "202", "20266", "2024"],
    "month": ["1", "01", "12", "13", "00", "0", "2", "02"],
    "day": ["1", "01", "28", "29", "30", "31", "32", "0", "9"],
    "clock": ["0", "00", "1", "23", "24", "59", "60", "7"],
    "zone": ["Z", "z", "+01:00", "-00:30", "+00:00", "-24:60", "+25:00", "+1:00", "+23:61", ""],
}
LIMITS = [
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "+18446744073709551615",
    "0x7fffffffffffffff",
    "0xffffffffffffffff",
    "0x1ffffffffffffffff",
    "1e308",
    "1e309",
    "61e9540",
    "-61e9540",
    "1e-400",
    ".5e400",
]


class Generator:
    """Texts from one seed."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)  # noqa: S311

    def digits(self, alphabet: str, longest: int) -> str:
        return "".join(self._random.choice(alphabet) for _ in range(self._random.randint(1, longest)))

    def number(self) -> str:
        pick, digits = self._random.choice, self.digits
        fraction = pick(["", ".", "." + digits("0123456789_", 5)])
        exponent = pick("eE") + pick(["", "+", "-"]) + digits("0123456789", 4)
        forms = [
            digits("0123456789", 22),
            pick(["0x", "0X"]) + digits("0123456789abcdefABCDEF_", 19),
            pick(["0o", "0O", "0"]) + digits("012345678_", 24),
            pick(["0b", "0B"]) + digits("01_", 66),
            digits("0123456789_", 6) + fraction + exponent,
            "." + digits("0123456789_", 5) + pick(["", exponent]),
            pick([".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN", ".iNf", "inf", "NaN"]),
        ]
        return pick(["", "", "+", "-"]) + pick(forms)

    def time(self) -> str:
        pick = self._random.choice
        text = "-".join(pick(TIMES[part]) for part in ("year", "month", "day"))
        if not self._random.randrange(5):
            return text
        separator = pick("TTt ")
        clock = ":".join(pick(TIMES["clock"]) for _ in range(pick([3, 3, 3, 2])))
        fraction = pick(["", "", "." + self.digits("0123456789", 12), "," + self.digits("0123456789", 3), "."])
        return text + separator + clock + fraction + ("" if separator == " " else pick(TIMES["zone"]))

    def text(self) -> str:
        pick = self._random.choice
        odd = "".join(pick(ODD) for _ in range(self._random.randint(1, 5)))
        word = pick(WORDS) + pick(["", "_"])
        return pick([self.number(), self.number(), self.time(), word, odd])


def is_plain(text: str) -> bool:
    """Whether YAML reads the text as one plain scalar."""
    return not (
        (text[0] in ",-?:" and (len(text) == 1 or text[1] == " ")) or text[0] == "," or text.endswith((":", " "))
    )


def main() -> None:
    """Write the reference."""
    generator = Generator()
    texts = dict.fromkeys(LIMITS)
    while len(texts) < COUNT:
        text = generator.text()
        if is_plain(text) and ": " not in text:
            texts[text] = None
    given = "".join(json.dumps(f"k: {text}\n") + "\n" for text in texts)
    read = subprocess.run(["go", "run", "."], cwd=HERE, input=given, capture_output=True, text=True, check=True).stdout
    rows = [
        json.dumps([text, *json.loads(line)], ensure_ascii=False)
        for text, line in zip(texts, read.splitlines(), strict=True)
    ]
    (HERE / "scalars.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main()
