"""DuckDB as people join it with ClickHouse: it reads the server's own Parquet by its URL, and writes Parquet.

    python clickhouse_duckdb.py SERVER USER SQL FILE

The password is in CLICKHOUSE_PASSWORD. The extension for HTTP comes out of its wheel, so that nothing is downloaded.
"""

import glob
import os
import site
import sys
import urllib.parse

import duckdb

server, user, sql, file = sys.argv[1:]
[extension] = [
    found
    for folder in site.getsitepackages()
    for found in glob.glob(f"{folder}/duckdb_extension_httpfs/extensions/*/httpfs.duckdb_extension")
]
quoted = lambda text: "'" + text.replace("'", "''") + "'"
connection = duckdb.connect()
connection.execute(f"load {quoted(extension)}")
headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": os.environ.get("CLICKHOUSE_PASSWORD", "")}
words = ", ".join(f"{quoted(name)}: {quoted(value)}" for name, value in headers.items())
connection.execute(f"create secret (type http, extra_http_headers map {{{words}}})")
connection.execute("set preserve_insertion_order = false")
url = f"http://{server}/?query={urllib.parse.quote(sql + ' FORMAT Parquet')}"
connection.execute(f"copy (from read_parquet({quoted(url)})) to {quoted(file)} (format parquet, compression zstd)")
