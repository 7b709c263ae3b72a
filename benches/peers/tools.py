"""Every tool of the benchmark: what it is, how it is called, what it writes."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 8192


@dataclass
class Context:
    """What the commands need to know."""

    outhaul: str
    url: str
    port: str
    duckdb: str
    extension: str | None
    httpfs: str | None
    # The variables of the S3 server.
    s3: dict[str, str]
    python: str
    bucket: str
    # Blocks of each table.
    blocks: dict[str, int]


@dataclass
class Tool:
    name: str
    table: str
    title: str
    # The commands, which run at the same time, from the context and the folder to write to.
    commands: Callable[[Context, str], list[list[str]]]
    # What the check reads: parquet, csv, json, dump, or None where nothing is kept.
    output: str | None
    note: str = ""
    # Python distributions without which it cannot run.
    needs: tuple[str, ...] = ()
    ours: bool = False
    s3: bool = False
    # How the check gets the hexadecimal digits of events.digest.
    digest: str = "substr(digest, 3)"
    # How the check gets events.payload as JSON.
    payload: str = "payload::json"
    # Runs in each round: more where one is so short that chance decides.
    times: int = 1
    # Numbers may be rounded to doubles.
    lossy: bool = False


def outhaul(name, table, title, output, *options, s3=False, readers=2, times=1):
    def commands(context, out):
        to = f"s3://{context.bucket}/{os.path.basename(out)}" if s3 else out
        call = [context.outhaul, "export", "--from", f"{context.url}?sslmode=disable", "--table", f"public.{table}",
                "--to", to, "--progress", "none", "--readers", str(readers), *options]  # fmt: skip
        return [call]

    digest = "lower(hex(digest))" if output == "parquet" else "substr(digest, 3)"
    return Tool(name, table, title, commands, output, ours=True, s3=s3, digest=digest, times=times)


def psql_halves(context, table, target, options):
    """Two psql, each with half of the table's blocks."""
    half = context.blocks[table] // 2
    ranges = (f"ctid < '({half},0)'", f"ctid >= '({half},0)'")
    return [
        ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={context.url}",
         f"--command=\\copy (select * from public.{table} where {blocks}) to '{target(n)}' with ({options})"]
        for n, blocks in enumerate(ranges)
    ]  # fmt: skip


def drain(table):
    return Tool(f"{table}-drain", table, "two psql, COPY BINARY to the null device",
                lambda c, out: psql_halves(c, table, lambda n: "/dev/null", "format binary"), None,
                note="what the server can send: nothing is decoded, nothing is kept")  # fmt: skip


def psql_csv(table):
    return Tool(f"{table}-psql-csv", table, "two psql, COPY CSV",
                lambda c, out: psql_halves(c, table, lambda n: f"{out}/{n}.csv", "format csv, header"), "csv",
                note="the server formats")  # fmt: skip


def duckdb(table, output, options, s3=False):
    def commands(context, out):
        host = f"host=127.0.0.1 port={context.port} user=postgres dbname=postgres sslmode=disable"
        target, store = f"{out}/files", ""
        if s3:
            target, name = f"s3://{context.bucket}/{os.path.basename(out)}/files", context.s3
            store = (
                f"load '{context.httpfs}'; create secret (type s3, key_id '{name['AWS_ACCESS_KEY_ID']}', secret "
                f"'{name['AWS_SECRET_ACCESS_KEY']}', region '{name['AWS_REGION']}', endpoint "
                f"'{name['AWS_ENDPOINT'].removeprefix('http://')}', url_style 'path', use_ssl false); "
            )
        sql = (
            f"{store}load '{context.extension}'; set threads = 2; set preserve_insertion_order = false; "
            f"attach '{host}' as pg (type postgres, read_only); "
            f"copy pg.public.{table} to '{target}' (format {output}, per_thread_output{options});"
        )
        return [[context.duckdb, "-no-init", "-bail", "-c", sql]]

    # What it writes otherwise than we do, column for column.
    notes = {
        "lineitem": "character(n) without its blanks" + ("; numeric as doubles" if output == "json" else ""),
        "events": "numeric without a scale as double" + ("; jsonb as a string" if output == "json" else ""),
    }
    digest = "lower(hex(digest))" if output == "parquet" else "lower(hex(digest::blob))"
    payload = "(payload->>'$')::json" if output == "json" else "payload::json"
    needs = ("duckdb-cli", "duckdb-extension-postgres-scanner", *(["duckdb-extension-httpfs"] if s3 else []))
    title = f"DuckDB, {output}" + (", zstd 1" if options else "") + (", to S3" if s3 else "")
    return Tool(f"s3-duckdb-{output}" if s3 else f"{table}-duckdb-{output}", table, title, commands, output,
                note=notes[table], needs=needs, digest=digest, payload=payload, lossy=True, s3=s3)  # fmt: skip


def arrow(name, title, needs, note):
    def commands(context, out):
        return [[context.python, f"{HERE}/arrow_peer.py", name, context.url.replace("postgres:", "postgresql:"),
                 "lineitem", f"{out}/all.parquet"]]  # fmt: skip

    return Tool(f"lineitem-{name}", "lineitem", title, commands, "parquet", note=note, needs=(*needs, "pyarrow"),
                lossy=True)  # fmt: skip


def pg_dump(table):
    def commands(context, out):
        return [["pg_dump", "-Fd", "-j2", "-Z1", f"--table=public.{table}", f"--file={out}/dump", context.url]]

    return Tool(f"{table}-pg-dump", table, "pg_dump -Fd -j2 -Z1", commands, "dump",
                note="one table is one job, whatever -j says; only its rows are counted")  # fmt: skip


def formats(table):
    return [
        outhaul(f"{table}-parquet", table, "Outhaul, Parquet, zstd 1", "parquet"),
        outhaul(f"{table}-csv", table, "Outhaul, CSV", "csv", "--format", "csv"),
        outhaul(f"{table}-ndjson", table, "Outhaul, NDJSON", "json", "--format", "ndjson"),
        duckdb(table, "parquet", ", compression zstd, compression_level 1"),
        duckdb(table, "csv", ""),
        duckdb(table, "json", ""),
        psql_csv(table),
    ]


def parquet(name, table, title, *options, readers, times=1):
    return outhaul(name, table, f"Outhaul, Parquet, {title}", "parquet", *options, readers=readers, times=times)


def all_tools():
    """In the order in which the first round runs them."""
    csv_zstd = ("--format", "csv", "--compression", "zstd")
    return [
        drain("lineitem"),
        *formats("lineitem"),
        outhaul("lineitem-csv-zstd", "lineitem", "Outhaul, CSV, zstd", "csv", *csv_zstd),
        arrow("connectorx", "ConnectorX + pyarrow, Parquet, zstd 1", ("connectorx",), "holds the whole table in memory"),
        arrow("adbc", "ADBC + pyarrow, Parquet, zstd 1", ("adbc-driver-manager", "adbc-driver-postgresql"),
              "one connection; numeric as text"),
        pg_dump("lineitem"),
        drain("events"),
        *formats("events"),
        outhaul("s3-parquet", "lineitem", "Outhaul, Parquet to S3", "parquet", s3=True),
        duckdb("lineitem", "parquet", ", compression zstd, compression_level 1", s3=True),
        outhaul("s3-csv", "lineitem", "Outhaul, CSV to S3", "csv", "--format", "csv", s3=True),
        parquet("one-reader", "lineitem", "1 reader", readers=1),
        parquet("more-readers-than-cores", "lineitem", "8 readers", readers=8),
        parquet("one-partition", "lineitem", "1 partition, 2 readers", "--partitions", "1", readers=2),
        parquet("wide", "wide", "very wide rows", readers=2),
        parquet("wide-one-reader", "wide", "very wide rows, 1 reader", readers=1),
        parquet("tiny", "tiny", "100 rows", readers=2, times=5),
        parquet("tiny-one-reader", "tiny", "100 rows, 1 reader", readers=1, times=5),
    ]  # fmt: skip


def memory_tools():
    """lineitem and five times as much of it, in every format."""
    return [
        outhaul(f"memory-{table}-{name}", table, f"Outhaul, {name}, {table}", output, "--format", name)
        for table in ("lineitem", "lineitem5")
        for name, output in (("parquet", "parquet"), ("csv", "csv"), ("ndjson", "json"))
    ]


if __name__ == "__main__":
    sys.exit("a part of scripts/bench")
