"""Reads an export whose rows are in folders.

usage: folders.py manifest|ddl|readers DEST

manifest: every part as the manifest describes it, read by pyarrow, with the values of its folders beside its rows.
ddl: what the view of _ddl/duckdb.sql shows.
readers: what readers of a bare folder make of the column c of each row.

Rows come as JSON, as an object from the text of the column id to the values; NULL is null.
"""

import json
import re
import sys
import urllib.parse

import duckdb
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json
import pyarrow.parquet


def table(path):
    if path.endswith(".parquet"):
        return pyarrow.parquet.ParquetFile(path).read()
    if path.endswith(".csv"):
        return pyarrow.csv.read_csv(path)
    return pyarrow.json.read_json(path)


def by_manifest(dest, manifest):
    rows = {}
    for part in manifest["parts"]:
        for row in table(f"{dest}/{part['path']}").to_pylist():
            key = str(row.pop("id"))
            assert key not in rows, key
            rows[key] = {**row, **part["partition_values"]}
    return rows


def by_ddl(dest, manifest):
    connection = duckdb.connect()
    script = open(f"{dest}/_ddl/duckdb.sql").read()
    view = re.search(r'CREATE OR REPLACE VIEW ("?\w+"?) AS', script).group(1)
    connection.execute(script)
    names = [name for name, *_ in connection.execute(f"DESCRIBE {view}").fetchall()]
    found = connection.execute(f"SELECT * FROM {view}").fetchall()
    rows = [dict(zip(names, row)) for row in found]
    return {str(row.pop("id")): {name: value if value is None else str(value) for name, value in row.items()} for row in rows}


def spark_unescaped(name):
    """Spark's ExternalCatalogUtils.unescapePathName."""
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found.group(1)).decode("latin-1"), name)


def spark_folder(path):
    """Spark's PartitioningUtils.parsePartitionColumn, without inference: the value of one folder."""
    name = next(folder for folder in path.split("/") if folder.startswith("c="))[2:]
    if name == "__HIVE_DEFAULT_PARTITION__":
        return None
    assert name, "Spark refuses a folder without a value"
    return spark_unescaped(name)


def by_readers(dest, manifest):
    files = f"{dest}/data/**/*.parquet"
    options = "hive_partitioning = true, hive_types_autocast = false"
    found = duckdb.connect().execute(f"SELECT id, c FROM read_parquet('{files}', {options})").fetchall()
    answers = {"duckdb": {str(key): value for key, value in found}}
    hive = pyarrow.dataset.partitioning(pyarrow.schema([("c", pyarrow.string())]), flavor="hive")
    rows = pyarrow.dataset.dataset(f"{dest}/data", format="parquet", partitioning=hive).to_table().to_pylist()
    answers["pyarrow"] = {str(row["id"]): row["c"] for row in rows}
    answers["spark"] = {}
    for part in manifest["parts"]:
        for row in table(f"{dest}/{part['path']}").to_pylist():
            answers["spark"][str(row["id"])] = spark_folder(part["path"])
    return answers


what, dest = sys.argv[1:]
manifest = json.load(open(f"{dest}/_manifest.json"))
print(json.dumps({"manifest": by_manifest, "ddl": by_ddl, "readers": by_readers}[what](dest, manifest)))
