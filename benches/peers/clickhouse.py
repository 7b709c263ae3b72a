"""Outhaul against its peers on ClickHouse: typed Parquet against clickhouse-connect with pyarrow and against DuckDB, the
server's own bytes against curl, the server's own Parquet as the floor, and peak memory at two sizes.

    python benches/peers/clickhouse.py --binary target/release/outhaul --server 127.0.0.1:8123 --user writer [--rounds 5]
        [--rows N] [--out DIR]

Wants clickhouse-connect, pyarrow and DuckDB (scripts/pins/clickhouse.txt) and curl. The password is in CLICKHOUSE_PASSWORD. Makes a
table bench.lines of N rows (10,000,000), and one of a quarter of them. The CPU is the client's alone. Prints JSON, and writes it
to DIR/clickhouse.json. Exits 1 where what Outhaul wrote is not what its peers wrote.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import pyarrow.compute
import pyarrow.parquet
from environment import cpu_model
from measure import run

HERE = os.path.dirname(os.path.abspath(__file__))
BARS = {"typed_cpu": 0.5, "verbatim_wall": 1.05, "memory_mb": 160.0}
COLUMNS = """number AS id, toUInt32(number % 150000) AS part, toInt64(cityHash64(number) % 10000) AS supplier,
    toDecimal64(number % 5000000 / 100, 2) AS price, toFloat64(number % 50) AS quantity,
    toDate('1992-01-01') + toIntervalDay(number % 2500) AS shipped, toDateTime64(1e9 + number / 7, 3, 'UTC') AS at,
    ['AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL'][number % 5 + 1] AS mode,
    concat('comment ', hex(cityHash64(number)), ' of ', toString(number % 997)) AS note"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--user", default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--out")
    return parser.parse_args()


class Bench:
    """The tools, and where they write."""

    def __init__(self, given, folder):
        self.given = given
        self.folder = folder
        self.password = os.environ.get("CLICKHOUSE_PASSWORD", "")
        self.env = {"PATH": os.environ["PATH"], "HOME": folder, "CLICKHOUSE_PASSWORD": self.password}
        self.url = f"clickhouse://{given.user}@{given.server}/bench"
        # What a process list shows is no place for a password.
        self.curl_config = os.path.join(folder, "curl")
        with open(self.curl_config, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            out.write(f'header = "X-ClickHouse-User: {given.user}"\nheader = "X-ClickHouse-Key: {self.password}"\n')

    def curl(self, sql, file):
        return ["curl", "-sSf", "-K", self.curl_config, "-o", file, "--data-binary", sql, f"http://{self.given.server}/"]

    def ask(self, sql):
        found = subprocess.run(self.curl(sql, "-"), capture_output=True, check=False)
        if found.returncode != 0:
            sys.exit(f"{sql.split('(')[0]}: {found.stdout.decode()[:500]}{found.stderr.decode()[:500]}")
        return found.stdout.decode().strip()

    def fill(self, name, rows):
        self.ask("CREATE DATABASE IF NOT EXISTS bench")
        if self.ask(f"EXISTS TABLE bench.{name}") == "1" and self.ask(f"SELECT count() FROM bench.{name}") == str(rows):
            return
        self.ask(f"DROP TABLE IF EXISTS bench.{name}")
        self.ask(f"CREATE TABLE bench.{name} ENGINE = MergeTree ORDER BY id AS SELECT {COLUMNS} FROM numbers({rows})")

    def commands(self, table):
        """name -> the command, and the file or folder that it makes."""
        outhaul, folder = self.given.binary, self.folder
        host, port = self.given.server.rsplit(":", 1)
        select = f"SELECT * FROM bench.{table}"
        # Two answers without an order are two orders.
        ordered = f"{select} ORDER BY id FORMAT TabSeparated"
        typed, verbatim = os.path.join(folder, "typed"), os.path.join(folder, "verbatim.tsv")
        connect, duck, floor, plain = (
            os.path.join(folder, name) for name in ("connect.parquet", "duckdb.parquet", "floor.parquet", "plain.tsv")
        )
        peer = [sys.executable, f"{HERE}/clickhouse_peer.py", host, port, self.given.user, self.password, select, connect]
        from_us = [outhaul, "export", "--from", self.url]
        return {
            "typed": (from_us + ["--table", f"bench.{table}", "--to", typed, "--format", "parquet", "--quiet"], typed),
            "connect": (peer, connect),
            "duckdb": (
                [sys.executable, f"{HERE}/clickhouse_duckdb.py", self.given.server, self.given.user, select, duck],
                duck,
            ),
            "floor": (self.curl(f"{select} FORMAT Parquet", floor), floor),
            "verbatim": (
                from_us + ["--query", ordered, "--to", verbatim, "--single-file", "--quiet"],
                verbatim,
            ),
            "curl": (self.curl(ordered, plain), plain),
        }

    def one(self, command, made):
        shutil.rmtree(made, ignore_errors=True)
        for name in os.listdir(self.folder):
            if os.path.join(self.folder, name).startswith(made) or name.startswith("_"):
                target = os.path.join(self.folder, name)
                shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
        usage = run([command], self.env, os.path.join(self.folder, "errors"))
        if usage.error:
            sys.exit(f"{os.path.basename(command[0])}: {usage.error.replace(self.password or chr(0), '…')}")
        return usage


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path):
    """Rows, and sums that would differ where a value did."""
    files = [path]
    if os.path.isdir(path):
        data = os.path.join(path, "data")
        files = sorted(os.path.join(data, name) for name in os.listdir(data))
    rows, ids, notes = 0, 0, 0
    for file in files:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(columns=["id", "note"]):
            rows += batch.num_rows
            ids += pyarrow.compute.sum(batch.column("id")).as_py() or 0
            notes += pyarrow.compute.sum(pyarrow.compute.binary_length(batch.column("note"))).as_py() or 0
    return rows, int(ids), notes


def wrong(tools):
    """What Outhaul wrote otherwise than its peers."""
    found = []
    rows = {name: content(tools[name][1]) for name in ("typed", "connect", "duckdb", "floor")}
    if len(set(rows.values())) > 1:
        found.append(f"typed, or a peer, has other rows: {rows}")
    if digest(tools["verbatim"][1]) != digest(tools["curl"][1]):
        found.append("verbatim: the bytes are not curl's")
    return found


def main():
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="outhaul-bench-") as folder:
        bench = Bench(given, folder)
        sizes = {"lines": given.rows, "quarter": given.rows // 4}
        for table, rows in sizes.items():
            bench.fill(table, rows)
        tools = bench.commands("lines")
        measured = {name: [] for name in tools}
        for _ in range(given.rounds):
            # Each in turn, so that what disturbs the machine disturbs all of them.
            for name, (command, made) in tools.items():
                measured[name].append(bench.one(command, made))
        faults = wrong(tools)
        quarter = {name: bench.one(*tool) for name, tool in bench.commands("quarter").items()}
        version = bench.ask("SELECT version() FORMAT TSV")
    median = lambda name, what: statistics.median(getattr(usage, what) for usage in measured[name])
    peak = lambda name: max(usage.rss_mb for usage in measured[name])
    ratios = {
        "typed_cpu": median("typed", "cpu_s") / median("connect", "cpu_s"),
        "verbatim_wall": median("verbatim", "wall_s") / median("curl", "wall_s"),
        "memory_mb": max(peak("typed"), peak("verbatim")),
    }
    cpu, cores = cpu_model(), len(os.sched_getaffinity(0))
    result = {
        "machine": f"{cores}-cores-{re.sub('[^a-z0-9]+', '-', cpu.lower()).strip('-')}",
        "server_version": version,
        "rows": given.rows,
        "rounds": given.rounds,
        "tools": {
            name: {
                "wall_s": round(median(name, "wall_s"), 3),
                "cpu_s": round(median(name, "cpu_s"), 3),
                "peak_mb": round(peak(name), 1),
                "peak_mb_of_a_quarter": round(quarter[name].rss_mb, 1),
            }
            for name in tools
        },
        "bars": {
            name: {"measured": round(ratios[name], 3), "bar": bar, "met": ratios[name] <= bar} for name, bar in BARS.items()
        },
        "wrong": faults,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        with open(os.path.join(given.out, "clickhouse.json"), "w", encoding="utf-8") as out:
            out.write(text + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
