#!/usr/bin/env bash
# Parquet: DuckDB and PyArrow pass over rows with NaN, by statistics that leave NaN out.
#
# With:      pyarrow 26.0.1, duckdb 2.0.1, polars 2.1.0, deltalake 1.6.6.
# Data:      a column of losses 0.1, NaN, 0.9 and one of 3.0, NaN, 3.0, each written by pyarrow: once without
#            statistics and once with them, which is the default.
# Expected:  a filter finds the same rows in both files, and in memory. The file holds the NaN, and Parquet's
#            definition says that the smallest and the largest value tell nothing about NaN.
# Seen:      with statistics, `isnan(loss)` of DuckDB finds no row, nor does `loss > 1` (to DuckDB NaN is above all
#            numbers). PyArrow loses the row for `not loss <= 1`, and in the second column for is_nan and `!= 3` too.
#            So "no run has diverged" is the answer for a table in which one has. delta-rs loses it for `> 1`.
#            Polars finds the row. DuckDB finds it too in what it has written itself: it writes no bounds beside NaN.
# Way out:   pq.write_table(..., write_statistics=False) for such columns; or missing values in place of NaN.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0 deltalake==1.6.6 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - <<'PY'
import math
import os
import sys

import duckdb
import polars
import pyarrow
import pyarrow.parquet as parquet
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from pyarrow.dataset import field

RUNS = pyarrow.table({"loss": [0.1, math.nan, 0.9], "same": [3.0, math.nan, 3.0]})


def sql(query):
    return duckdb.sql(query).fetchall()[0][0]


def found(file):
    """How many rows each filter finds."""

    def arrow(filters):
        return parquet.read_table(file, filters=filters).num_rows

    return {
        "duckdb isnan(loss)": sql(f"select count(*) from '{file}' where isnan(loss)"),
        "duckdb loss > 1": sql(f"select count(*) from '{file}' where loss > 1"),
        "pyarrow not loss <= 1": arrow(~(field("loss") <= 1)),
        "pyarrow is_nan(same)": arrow(field("same").is_nan()),
        "pyarrow same != 3": arrow(field("same") != 3),
        "polars is_nan(loss)": polars.scan_parquet(file).filter(polars.col("loss").is_nan()).collect().height,
        "polars loss > 1": polars.scan_parquet(file).filter(polars.col("loss") > 1).collect().height,
    }


parquet.write_table(RUNS, "without.parquet", write_statistics=False)
parquet.write_table(RUNS, "with.parquet")
without, with_them = found("without.parquet"), found("with.parquet")
print("rows found                without statistics, with them")
for query, number in without.items():
    print(f"  {query:23} {number}, {with_them[query]}")
duckdb.sql("copy (select * from 'without.parquet') to 'duckdb.parquet'")
own = sql("select count(*) from 'duckdb.parquet' where isnan(loss)")
print("duckdb isnan(loss), in a file of DuckDB:", own)
write_deltalake("table", RUNS)
answer = QueryBuilder().register("runs", DeltaTable("table")).execute("select loss from runs where loss > 1")
delta = pyarrow.table(answer.read_all()).num_rows
print("delta-rs loss > 1:", delta)
sys.stdout.flush()
as_recorded = (*without.values(), *with_them.values(), own, delta) == (*[1] * 7, *[0] * 5, 1, 1, 1, 0)
os._exit(0 if as_recorded else 1)  # some of these libraries' threads outlive an ordinary exit
PY
