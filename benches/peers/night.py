"""A night of forty tables: `outhaul run` against `pg_dump -Fd -j` and a loop of DuckDB COPYs, in turns; and jobs of 200 small
tables beside the server, 20 ms away from it, and to an S3 server 20 ms away. `scripts/bench --night` starts all that it needs.

    python3 benches/peers/night.py --binary target/release/outhaul --url URL [--peers DIR] [--rounds 5] [--only NAME,…] [--out FILE]

URL is of an empty database of a superuser without a password. DIR is the environment that scripts/bench installs, for DuckDB
and its extension; without it DuckDB is left out. The S3 server is the one of OUTHAUL_TEST_S3_…; without it the job to S3 is
left out. Prints JSON; ratios are of one run.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import environment
import measure
from far import Far

READERS = 4
# Rows of the forty tables, the largest first.
ROWS = [3_000_000, 1_000_000] + [200_000] * 8 + [5_000] * 30
SMALL_TABLES = 200
SMALL_ROWS = 100
ROUND_TRIP_S = 0.020
# Seconds, and the share of the better peer's: what the project promises.
BARS = {"small": 5, "small_far": 20, "small_s3": 40}
NIGHT_BAR = 0.8


def sql(url, text):
    subprocess.run(["psql", "-qXv", "ON_ERROR_STOP=1", url], input=text.encode(), check=True)


def fill(url):
    tables = [
        f"create table n{n:02} (id bigint primary key, at timestamptz not null, price numeric(12,2), name text, note text);"
        f"insert into n{n:02} select i, now() - i * interval '1 second', i % 10000 / 7.0, 'customer ' || i % 1000,"
        f" md5(i::text) from generate_series(1, {rows}) i;"
        for n, rows in enumerate(ROWS)
    ]
    small = [
        f"create table small.s{n:03} (id int primary key, v text);"
        f"insert into small.s{n:03} select i, 'x' from generate_series(1, {SMALL_ROWS}) i;"
        for n in range(SMALL_TABLES)
    ]
    sql(url, "create schema small;" + "".join(tables + small) + "vacuum analyze;")


def job(folder, schema, root):
    path = os.path.join(folder, "job.toml")
    with open(path, "w", encoding="ascii") as out:
        out.write(f"[defaults]\nreaders = {READERS}\nto = '{root}/{{table}}'\n[[export]]\ntable = '{schema}.*'\n")
    return path


def outhaul(binary, url, folder, schema="public", root=None):
    return [binary, "run", job(folder, schema, root or f"{folder}/out"), "--from", url, "--progress", "none"]


def s3_settings(endpoint):
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": os.environ["OUTHAUL_TEST_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": os.environ["OUTHAUL_TEST_S3_SECRET_KEY"],
    }


def pg_dump(url, folder):
    return ["pg_dump", "-Fd", "-j", str(READERS), "-n", "public", "-f", f"{folder}/out", url]


def duckdb(peers, extension, url, folder):
    place = urlsplit(url)
    host = f"host={place.hostname} port={place.port} user={place.username} dbname={place.path[1:]} sslmode=disable"
    copies = "".join(f"copy pg.public.n{n:02} to '{folder}/n{n:02}.parquet' (format parquet);" for n in range(len(ROWS)))
    text = f"load '{extension}'; set threads = {READERS}; attach '{host}' as pg (type postgres, read_only); {copies}"
    return [f"{peers}/bin/duckdb", "-no-init", "-bail", "-c", text]


def timed(name, argv_of, settings):
    folder = tempfile.mkdtemp(prefix=f"outhaul-night-{name}-")
    try:
        env = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ} | settings
        with tempfile.NamedTemporaryFile() as errors:
            usage = measure.run([argv_of(folder)], env, errors.name)
            if usage.error:
                raise SystemExit(f"{name}: {usage.error}\n{open(errors.name, encoding='utf-8', errors='replace').read()}")
        return usage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--out")
    args = parser.parse_args()
    fill(args.url)
    url = args.url + "?sslmode=disable"
    far = Far(args.url, ROUND_TRIP_S)
    relays = [far]
    tools = {
        "outhaul": lambda folder: outhaul(args.binary, url, folder),
        "pg_dump": lambda folder: pg_dump(args.url, folder),
        "small": lambda folder: outhaul(args.binary, url, folder, "small"),
        "small_far": lambda folder: outhaul(args.binary, far.url + "?sslmode=disable", folder, "small"),
    }
    settings = {}
    if "OUTHAUL_TEST_S3_ENDPOINT" in os.environ:
        far_store = Far(os.environ["OUTHAUL_TEST_S3_ENDPOINT"], ROUND_TRIP_S)
        relays.append(far_store)
        bucket = os.environ["OUTHAUL_TEST_S3_BUCKET"]
        root = lambda folder: f"s3://{bucket}/{os.path.basename(folder)}"
        tools["small_s3"] = lambda folder: outhaul(args.binary, url, folder, "small", root(folder))
        settings["small_s3"] = s3_settings(far_store.url)
    else:
        print("the job to S3 is left out: OUTHAUL_TEST_S3_ENDPOINT names no server", file=sys.stderr)
    extension = environment.duckdb_extension(args.peers) if args.peers else None
    if extension:
        tools["duckdb"] = lambda folder: duckdb(args.peers, extension, args.url, folder)
    else:
        print("DuckDB is left out: --peers names no environment that has it", file=sys.stderr)
    chosen = {name: tool for name, tool in tools.items() if not args.only or name in args.only.split(",")}
    try:
        found = {name: [] for name in chosen}
        for _ in range(args.rounds):
            for name, tool in chosen.items():
                usage = timed(name, tool, settings.get(name, {}))
                found[name].append(usage)
                print(f"{name}: {usage.wall_s:.2f} s", file=sys.stderr)
    finally:
        for relay in relays:
            relay.stop()
    walls = {name: statistics.median(usage.wall_s for usage in runs) for name, runs in found.items()}
    peers = [walls[name] for name in ("pg_dump", "duckdb") if name in walls]
    ratio = walls["outhaul"] / min(peers) if peers and "outhaul" in walls else None
    bars = {name: {"measured": round(walls[name], 2), "bar": bar, "met": walls[name] < bar} for name, bar in BARS.items() if name in walls}
    if ratio is not None:
        bars["night"] = {"measured": round(ratio, 3), "bar": NIGHT_BAR, "met": ratio <= NIGHT_BAR}
    measure.tell({
        "date": time.strftime("%Y-%m-%d"),
        "rounds": args.rounds,
        "tables": len(ROWS), "rows": sum(ROWS), "readers": READERS,
        "small_tables": SMALL_TABLES, "round_trip_ms": ROUND_TRIP_S * 1000,
        "wall_s": {name: round(wall, 2) for name, wall in walls.items()},
        "cpu_s": {name: round(statistics.median(usage.cpu_s for usage in runs), 2) for name, runs in found.items()},
        "peak_mb": {name: round(max(usage.rss_mb for usage in runs), 1) for name, runs in found.items()},
        "bars": bars,
    }, args.out)  # fmt: skip


if __name__ == "__main__":
    main()
