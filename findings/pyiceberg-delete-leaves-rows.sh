#!/usr/bin/env bash
# PyIceberg: delete leaves rows that the same filter finds, and an overwrite then stores them twice.
#
# With:      pyiceberg 0.12.0 with pyarrow 26.0.1, a catalogue on SQLite.
# Data:      five rows of a column of texts: train, test, held, train, and one without a value.
# Filter:    split not in ('train', 'test').
# Expected:  what a scan with a filter answers is what delete with it removes.
#            Iceberg's own evaluator lets a missing value pass `not in`; SQL does not. Either, but one.
# Seen:      the scan answers two rows, held and the missing one. delete removes one of them. overwrite, which is
#            a delete and an append, of those two rows (with a value set) leaves six rows: the one without a
#            value is there in its old form and in its new. With one text in the list both leave it out; with
#            NaN in a column of numbers, the scan finds it by `!=` as well, and delete keeps it.
# Way out:   say it: "split is null or split not in (...)", or "... and split is not null".
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyiceberg==0.12.0 pyarrow==26.0.1 sqlalchemy==2.1.9 pydantic==2.14.4 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import math
import sys

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

catalog = SqlCatalog("c", uri=f"sqlite:///{sys.argv[1]}/catalog.db", warehouse=f"file://{sys.argv[1]}")
catalog.create_namespace("lab")
SPLITS = pa.table({"row": [1, 2, 3, 4, 5], "split": ["train", "test", "held", "train", None]})
LOSSES = pa.table({"row": [1, 2, 3, 4], "loss": [0.5, 7.0, math.nan, None]})


def made(data):
    table = catalog.create_table(f"lab.t{len(catalog.list_tables('lab'))}", schema=data.schema)
    table.append(data)
    return table


def rows(table, **filters):
    return sorted(table.scan(**filters).to_arrow()["row"].to_pylist())


def outcome(data, text):
    """The rows that the filter finds, and those of them that are still there after a delete with it."""
    table = made(data)
    found = rows(table, row_filter=text)
    table.delete(text)
    return found, [row for row in rows(table) if row in found]


recorded = {
    "split not in ('train', 'test')": ([3, 5], [5]),
    "split not in ('train')": ([2, 3], []),
    "split = 'train'": ([1, 4], []),
    "split is null or split not in ('train', 'test')": ([3, 5], []),
    "loss not in (0.5, 7.0)": ([3, 4], [3, 4]),
    "loss != 0.5": ([2, 3], [3]),
    "loss > 1": ([2], []),
}
changed = False
for text, expected in recorded.items():
    seen = outcome(LOSSES if "loss" in text else SPLITS, text)
    print(f"{text}: found rows {seen[0]}, left by the delete {seen[1]}")
    changed = changed or seen != expected

filter_text = "split not in ('train', 'test')"
table = made(SPLITS)
rest = pa.table({"row": rows(table, row_filter=filter_text), "split": ["validate", "validate"]})
table.overwrite(rest, overwrite_filter=filter_text)
print(f"rows after an overwrite of {rest['row'].to_pylist()}: {rows(table)}")
sys.exit(changed or rows(table) != [1, 2, 3, 4, 5, 5])
PY
