"""Reads the parts of a local export with DuckDB, or Parquet with pyarrow, and prints what a statement says of them."""

import glob
import json
import os
import sys

import duckdb
import pyarrow.parquet as pq


def main(dest, statement):
    paths = sorted(glob.glob(os.path.join(dest, "data", "*")))
    if statement == "pyarrow":
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
        print(json.dumps(rows, default=lambda value: value.hex() if isinstance(value, bytes) else str(value)))
        return
    if paths[0].endswith(".parquet"):
        source = f"read_parquet({paths!r})"
    elif ".csv" in paths[0]:
        source = f"read_csv({paths!r}, header = true, all_varchar = true, nullstr = '')"
    else:
        source = f"read_json({paths!r}, format = 'newline_delimited', maximum_object_size = 100000000)"
    print(json.dumps(duckdb.sql(statement.replace("DATA", source)).fetchall(), default=str))


main(*sys.argv[1:])
