"""Reads what a tool wrote with DuckDB and compares its aggregates with PostgreSQL's."""

import json
import os
import subprocess
from decimal import Decimal, InvalidOperation

SUFFIXES = {"parquet": (".parquet",), "csv": (".csv", ".csv.zst"), "json": (".json", ".ndjson")}


def expected(table, psql):
    """PostgreSQL's own answer, by the name of the check."""
    columns = ", ".join(f"({check.postgres})::text" for check in table.checks)
    values = psql(f"select {columns} from public.{table.name}").split("|")
    return dict(zip((check.name for check in table.checks), values, strict=True))


def files(folder, output):
    found = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    # Outhaul's own records begin with an underscore, as do their folders.
    return sorted(path for path in found if path.endswith(SUFFIXES[output]) and "/_" not in path.removeprefix(folder))


def _source(table, output, paths):
    listed = "[" + ", ".join(f"'{path}'" for path in paths) + "]"
    columns = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in table.columns.items()) + "}"
    match output:
        case "parquet":
            return f"read_parquet({listed})"
        case "csv":
            return (
                f"read_csv({listed}, auto_detect = false, header = true, columns = {columns}, delim = ',', "
                "quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false)"
            )
        case "json":
            return f"read_json({listed}, format = 'newline_delimited', columns = {columns})"
    raise ValueError(output)


def written(duckdb, table, tool, folder):
    """The aggregates of what stands in the folder, by the name of the check, as text."""
    paths = files(folder, tool.output)
    if not paths:
        return {check.name: "no file" for check in table.checks}
    terms = (check.duckdb.replace("{digest}", tool.digest).replace("{payload}", tool.payload) for check in table.checks)
    expressions = ", ".join(f"({term})::varchar" for term in terms)
    # As a list of values: two columns of one name would be one in JSON.
    sql = f"set threads = 2; select [{expressions}] as found from {_source(table, tool.output, paths)}"
    read = subprocess.run(
        [duckdb, "-no-init", "-bail", "-json", "-c", sql], capture_output=True, text=True, check=False, timeout=900
    )
    if read.returncode != 0:
        return {"reading": read.stderr.strip()[-500:] or f"exit {read.returncode}"}
    found = json.loads(read.stdout)[0]["found"]
    return dict(zip((check.name for check in table.checks), found, strict=True))


def dump_rows(folder):
    """Rows in the data files of a pg_dump folder: the lines before the end mark."""
    rows = 0
    for at, _, names in os.walk(folder):
        for name in (name for name in names if name.endswith(".dat.gz")):
            with subprocess.Popen(["gzip", "-dc", os.path.join(at, name)], stdout=subprocess.PIPE) as gzip:
                counted = subprocess.run(
                    ["awk", '$0 == "\\\\." { exit } { n++ } END { print n + 0 }'],
                    stdin=gzip.stdout, capture_output=True, text=True, check=True,
                )  # fmt: skip
                gzip.stdout.close()
            rows += int(counted.stdout)
    return {"rows": str(rows)}


def _equal(left, right, relative):
    if left == right:
        return True
    try:
        left, right = Decimal(left), Decimal(right)
    except (InvalidOperation, TypeError):
        return False
    return left == right or abs(left - right) <= relative * max(abs(left), abs(right))


def differences(table, tool, want, found):
    """What differs, one line a check; empty where the output is right."""
    lines = []
    for check in table.checks:
        if tool.output == "dump" and check.name != "rows":
            continue
        relative = Decimal("1e-9") if check.rounded or tool.lossy else Decimal(0)
        got = found.get(check.name)
        if not _equal(want[check.name], got, relative):
            lines.append(f"{check.name}: {want[check.name]} in PostgreSQL, {got} written")
    if "reading" in found:
        lines = [f"cannot be read: {found['reading']}"]
    return lines
