"""An independent reader of a finished export: DuckDB, pyarrow and boto3, none of our own code.

oracle.py DEST [--manifest NAME] [--csv-null TEXT] [--csv-delimiter C] [--exact | --fast] [--no-listing]

DEST is a folder or s3://bucket/prefix (server from OUTHAUL_TEST_S3_…). Prints one JSON object:

  problems   what is wrong, as sentences; empty when the destination is exactly what its manifest says
  columns    the columns as the data name them, in order
  rows       data rows
  hash       two numbers modulo 2^64: the sums of the halves of md5(row) over all rows, so that order does not matter

The text of a row is what PostgreSQL prints for the row as a record, `(1,"a b",,"")`: NULL and the empty string differ,
separators in values are quoted, and every value is in the form its output function (and so COPY) gives it.

Small exports of CSV and NDJSON are read by the parsers below, which take every value as it is written. Above
EXACT_BYTES_MAX DuckDB reads them, because Python would take minutes; a number then goes through the type that
the manifest names.
"""

import argparse
import base64
import gzip
import json
import os
import re
import sys
import tempfile

import awscrt.checksums
import duckdb
import pyarrow as pa

import values

EXACT_BYTES_MAX = 32 * 1024 * 1024
CHUNK_BYTES = 8 * 1024 * 1024


# --- The destination: what is there, against what the manifest says.


class Folder:
    """A local destination."""

    def __init__(self, root):
        self.root = root

    def list(self):
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = os.path.getsize(path)
        return found

    def get(self, path):
        return os.path.join(self.root, path)

    def stored_crc(self, _path):
        return None


class Bucket:
    """A destination on S3; objects are copied to a temporary folder to be read."""

    def __init__(self, url, folder):
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        import s3

        self.client, _ = s3.from_env()
        self.bucket, _, self.prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        self.prefix += "/" if self.prefix else ""
        self.folder = folder

    def list(self):
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix):
            for item in page.get("Contents", []):
                found[item["Key"][len(self.prefix) :]] = item["Size"]
        return found

    def get(self, path):
        local = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(local), exist_ok=True)
        if not os.path.exists(local):
            self.client.download_file(self.bucket, self.prefix + path, local)
        return local

    def stored_crc(self, path):
        head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + path, ChecksumMode="ENABLED")
        return head.get("ChecksumCRC64NVME")


def crc64nvme(path):
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = awscrt.checksums.crc64nvme(chunk, crc)
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def hidden(path):
    return any(step[0] in "_." for step in path.split("/"))


def check_objects(place, manifest, listing, problems):
    named = {part["path"]: part for part in manifest["parts"]}
    if len(named) != len(manifest["parts"]):
        problems.append("the manifest names a part twice")
    there = place.list()
    if listing:
        for path in sorted(path for path in there if not hidden(path)):
            if path not in named:
                problems.append(f"{path} is there, but not in the manifest")
    for path, part in named.items():
        if path not in there:
            problems.append(f"{path} is in the manifest, but not there")
            continue
        if there[path] != part["bytes"]:
            problems.append(f"{path} has {there[path]} bytes, the manifest says {part['bytes']}")
        actual = crc64nvme(place.get(path))
        for whose, said in (("the manifest", part["crc64nvme"]), ("the store", place.stored_crc(path))):
            if said is not None and said != actual:
                problems.append(f"{path} has CRC64NVME {actual}, {whose} says {said}")
    totals = manifest["totals"]
    for name, actual in (
        ("parts", len(manifest["parts"])),
        ("rows", sum(part["rows"] for part in manifest["parts"])),
        ("bytes", sum(part["bytes"] for part in manifest["parts"])),
    ):
        if totals[name] != actual:
            problems.append(f"totals.{name} is {totals[name]}, the parts add up to {actual}")
    return [path for path in named if path in there]


# --- Values: the text that PostgreSQL's output functions give.


def float_text(array, single):
    texts = (None if value is None else values.float_text(value, single) for value in array.to_pylist())
    return pa.array(texts, pa.string())


def value_sql(column, kind):
    """The SQL expression for PostgreSQL's text of a column of DuckDB type `kind`."""
    if kind == "BOOLEAN":
        return f"case {column} when true then 't' when false then 'f' end"
    if kind == "BLOB":
        return f"'\\x' || lower(hex({column}))"
    if kind == "DOUBLE":
        return f"float8_text({column})"
    if kind == "FLOAT":
        return f"float4_text({column})"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return f"replace(replace({column}::varchar, '(BC)', 'BC'), 'T', ' ')"
    return f"{column}::varchar"


def plain(kind):
    """Whether texts of the type never need quotes in a record."""
    return kind.split("(")[0] in (
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UBIGINT", "UINTEGER", "HUGEINT"),
        *("DECIMAL", "BOOLEAN", "DOUBLE", "FLOAT", "TIME", "UUID"),
    )


def record_sql(columns):
    """The SQL expression for PostgreSQL's text of the whole row."""
    fields = []
    for column, kind in columns:
        quoted = '"' + column.replace('"', '""') + '"'
        text = value_sql(quoted, kind)
        if not plain(kind):
            text = f"record_field({text})"
        fields.append(f"coalesce({text}, '')")
    return "'(' || " + " || ',' || ".join(fields) + " || ')'"


def open_database(folder):
    database = duckdb.connect(os.path.join(folder, "oracle.duckdb"))
    database.execute("set TimeZone = 'UTC'")
    database.execute(f"set temp_directory = '{folder}'")
    database.execute("set preserve_insertion_order = false")
    database.execute(
        "create macro record_field(v) as case when v = '' or regexp_matches(v, '[\"(),\\\\ \\t\\n\\r\\v\\f]')"
        " then '\"' || replace(replace(v, '\\', '\\\\'), '\"', '\"\"') || '\"' else v end"
    )
    for name, kind, function in (
        ("float8_text", "DOUBLE", lambda array: float_text(array, single=False)),
        ("float4_text", "FLOAT", lambda array: float_text(array, single=True)),
    ):
        database.create_function(name, function, [kind], "VARCHAR", type="arrow", null_handling="special")
    return database


# --- Formats: each gives the FROM clause and the columns with their DuckDB types.


def sql_text(text):
    return "'" + text.replace("'", "''") + "'"


def sql_list(paths):
    return "[" + ", ".join(map(sql_text, paths)) + "]"


def read_parquet(database, paths):
    source = f"read_parquet({sql_list(paths)}, filename = 'outhaul_file')"
    columns = database.execute(f"describe select * exclude (outhaul_file) from {source}").fetchall()
    return source, [(row[0], row[1]) for row in columns]


def plain_bytes(path):
    if path.endswith(".gz"):
        with gzip.open(path) as file:
            return file.read()
    with open(path, "rb") as file:
        if path.endswith(".zst"):
            return pa.CompressedInputStream(file, "zstd").read()
        return file.read()


def parse_csv(text, delimiter, null):
    """Rows of a CSV file, NULL as None: what stands in quotes is never NULL."""
    field = re.compile(rf'"((?:[^"]|"")*)"|([^"{re.escape(delimiter)}\r\n][^{re.escape(delimiter)}\r\n]*|)')
    rows, row, at = [], [], 0
    while at < len(text):
        match = field.match(text, at)
        quoted, bare = match.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else None if bare == null else bare)
        at = match.end()
        if text.startswith(delimiter, at):
            at += len(delimiter)
            if at < len(text):
                continue
            row.append(None)
        elif text.startswith("\r\n", at):
            at += 2
        elif text.startswith("\n", at):
            at += 1
        else:
            raise ValueError(f"CSV: neither delimiter nor line end at character {at}: {text[at : at + 40]!r}")
        rows.append(row)
        row = []
    return rows


def exact_csv(paths, parts, options):
    columns, files, rows = None, [], []
    for path in paths:
        text = plain_bytes(path).decode("utf-8").removeprefix("\ufeff")
        records = parse_csv(text, options.csv_delimiter, options.csv_null)
        if parts[path].get("header_rows", 0):
            header, records = records[0], records[1:]
            if columns not in (None, header):
                raise ValueError(f"{path}: the header differs from that of the parts before it")
            columns = header
        files += [path] * len(records)
        rows += records
    return columns, files, rows


def json_text(value, pg_type):
    """PostgreSQL's text of a value that row_to_json wrote."""
    if value is None:
        return None
    if pg_type in ("json", "jsonb"):
        return dump_json(value)
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        return dump_json(value)
    if pg_type.startswith("timestamp"):
        value = value.replace("T", " ", 1)
        return re.sub(r"([+-]\d\d):00$", r"\1", value) if "with time zone" in pg_type else value
    return str(value)


class Number(str):
    """A JSON number, as written."""


class Members(list):
    """The members of a JSON object in order, repeated names included."""


def dump_json(value):
    """As jsonb prints it: a space after each comma and colon, numbers as they were written."""
    if type(value) is Number:
        return str(value)
    if isinstance(value, Members):
        return "{" + ", ".join(f"{dump_json(k)}: {dump_json(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def exact_ndjson(paths, schema):
    columns, files, rows = [name for name, _ in schema], [], []
    reader = json.JSONDecoder(
        object_pairs_hook=Members, parse_float=Number, parse_int=Number, parse_constant=reject_constant
    )
    for path in paths:
        text = plain_bytes(path).decode("utf-8")
        if text and not text.endswith("\n"):
            raise ValueError(f"{path}: the last line has no end")
        for line in text.split("\n")[:-1]:
            pairs = reader.decode(line)
            if [name for name, _ in pairs] != columns:
                raise ValueError(f"{path}: a line's names are not the schema's: {line[:200]}")
            rows.append([json_text(v, kind) for (_, v), (_, kind) in zip(pairs, schema)])
            files.append(path)
    return columns, files, rows


def reject_constant(text):
    raise ValueError(f"{text} is not JSON")


def register(database, columns, files, rows):
    arrays = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(columns))]
    table = pa.table([*arrays, pa.array(files, pa.string())], names=[*columns, "outhaul_file"])
    database.register("exact", table)
    return "exact", [(name, "VARCHAR") for name in columns]


def fast_csv(paths, options, schema):
    names = ", ".join(f"{sql_text(name)}: 'VARCHAR'" for name, _ in schema)
    header = str(bool(options.header)).lower()
    source = (
        f"read_csv({sql_list(paths)}, filename = 'outhaul_file', auto_detect = false, header = {header},"
        f" columns = {{{names}}}, delim = {sql_text(options.csv_delimiter)}, quote = '\"', escape = '\"',"
        f" nullstr = {sql_text(options.csv_null)}, allow_quoted_nulls = false, strict_mode = true)"
    )
    return source, [(name, "VARCHAR") for name, _ in schema]


def fast_ndjson(paths, schema):
    def kind(pg_type):
        base = pg_type.split("(")[0]
        known = {"bigint": "BIGINT", "integer": "INTEGER", "smallint": "SMALLINT", "boolean": "BOOLEAN", "date": "DATE"}
        known |= {"double precision": "DOUBLE", "real": "FLOAT", "timestamp without time zone": "TIMESTAMP"}
        if base == "numeric" and "(" in pg_type:
            return pg_type.replace("numeric", "DECIMAL")
        return known.get(base, "VARCHAR")

    columns = [(name, kind(pg_type)) for name, pg_type in schema]
    types = ", ".join(f"{sql_text(name)}: '{duck}'" for name, duck in columns)
    source = (
        f"read_json({sql_list(paths)}, filename = 'outhaul_file', format = 'newline_delimited',"
        f" columns = {{{types}}}, auto_detect = false)"
    )
    return source, columns


def read(database, paths, parts, schema, options):
    name = os.path.basename(paths[0])
    if ".parquet" in name:
        return read_parquet(database, paths)
    exact = options.exact or (not options.fast and sum(map(os.path.getsize, paths)) <= EXACT_BYTES_MAX)
    if ".csv" in name:
        options.header = any(part.get("header_rows", 0) for part in parts.values())
        if not exact:
            return fast_csv(paths, options, schema)
        columns, files, rows = exact_csv(paths, parts, options)
        return register(database, columns or [name for name, _ in schema], files, rows)
    if ".ndjson" in name:
        return register(database, *exact_ndjson(paths, schema)) if exact else fast_ndjson(paths, schema)
    raise ValueError(f"{name}: no known format")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dest")
    arguments.add_argument("--manifest", default="_manifest.json")
    arguments.add_argument("--csv-null", default="")
    arguments.add_argument("--csv-delimiter", default=",")
    arguments.add_argument("--exact", action="store_true")
    arguments.add_argument("--fast", action="store_true")
    arguments.add_argument("--no-listing", action="store_true")
    options = arguments.parse_args()

    with tempfile.TemporaryDirectory(prefix="outhaul-oracle-") as folder:
        if options.dest.startswith("s3://"):
            place = Bucket(options.dest, os.path.join(folder, "objects"))
        else:
            place = Folder(options.dest)
        with open(place.get(options.manifest), encoding="utf-8") as file:
            manifest = json.load(file)
        problems = []
        found = check_objects(place, manifest, not options.no_listing, problems)
        parts = {place.get(part["path"]): part for part in manifest["parts"] if part["path"] in found}
        schema = [(column["name"], column["pg_type"]) for column in manifest["schema"]]
        result = {"columns": [name for name, _ in schema], "rows": 0, "hash": ["0", "0"]}
        if parts:
            database = open_database(folder)
            source, columns = read(database, list(parts), parts, schema, options)
            counted = database.execute(
                "select outhaul_file, count(*), sum(('0x' || left(digest, 16))::ubigint),"
                " sum(('0x' || right(digest, 16))::ubigint)"
                f" from (select outhaul_file, md5({record_sql(columns)}) as digest from {source}) group by outhaul_file"
            ).fetchall()
            rows_of = {row[0]: row[1] for row in counted}
            for path, part in parts.items():
                if rows_of.get(path, 0) != part["rows"]:
                    problems.append(
                        f"{part['path']} has {rows_of.get(path, 0)} rows, the manifest says {part['rows']}"
                    )
            result["columns"] = [name for name, _ in columns]
            result["rows"] = sum(row[1] for row in counted)
            # As text: JSON readers lose digits of large numbers.
            result["hash"] = [str(sum(int(row[i]) for row in counted) % 2**64) for i in (2, 3)]
        print(json.dumps({"problems": problems, **result}))


if __name__ == "__main__":
    main()
