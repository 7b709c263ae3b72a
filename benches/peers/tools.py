"""Every tool of the benchmark: what it is, how it is called, what it writes."""

import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

import tables

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 8192
# As many threads as we have readers. The last is what DuckDB does by itself, said here because it decides most.
DUCKDB_SETTINGS = "set threads = 2; set preserve_insertion_order = false; set pg_use_ctid_scan = true;"
# Its program comes in a package of its own for each processor.
SLING = f"sling-linux-{'arm64' if platform.machine() == 'aarch64' else 'amd64'}"
RIVET_SETTINGS = {"mode": "chunked", "chunk_column": "id", "chunk_count": 2, "parallel": 2}
RIVET_NOTE = "profile fast, 2 ranges of ids at a time; they share no snapshot"


@dataclass
class Context:
    """What the commands need to know."""

    outhaul: str
    url: str
    port: str
    # The programs and extensions of the peers; None where they could not be had.
    duckdb: str
    extension: str | None
    httpfs: str | None
    sling: str | None
    # Where Sling looks for its own files, and DuckDB for its extensions when Sling starts it.
    sling_home: str
    rivet: str
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
    # What stands in the folder before it starts, text by name.
    files: Callable[[str], dict[str, str]] = lambda out: {}
    # How the check gets the hexadecimal digits of events.digest.
    digest: str = "substr(digest, 3)"
    # How the check gets events.payload as JSON.
    payload: str = "payload::json"
    # Runs in each round: more where one is so short that chance decides.
    times: int = 1
    # So slow that the first round says enough.
    slow: bool = False
    # Numbers may be rounded to doubles.
    lossy: bool = False

    @property
    def far(self):
        """Whether it reaches the server by the relay of a long way."""
        return self.table == tables.FAR


def outhaul(name, table, title, output, *options, s3=False, readers=2, times=1):
    def commands(context, out):
        to = f"s3://{context.bucket}/{os.path.basename(out)}" if s3 else out
        call = [context.outhaul, "export", "--from", f"{context.url}?sslmode=disable", "--table", f"public.{table}",
                "--to", to, "--progress", "none", "--readers", str(readers), *options]  # fmt: skip
        return [call]

    digest = "lower(hex(digest))" if output == "parquet" else "substr(digest, 3)"
    return Tool(name, table, title, commands, output, ours=True, s3=s3, digest=digest, times=times)


def halves(context, table):
    """Conditions for each half of the table's blocks."""
    half = context.blocks[table] // 2
    return f"ctid < '({half},0)'", f"ctid >= '({half},0)'"


def psql_halves(context, table, target, options):
    """Two psql, each with half of the table's blocks."""
    return [
        ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={context.url}",
         f"--command=\\copy (select * from public.{table} where {blocks}) to '{target(n)}' with ({options})"]
        for n, blocks in enumerate(halves(context, table))
    ]  # fmt: skip


def drain(table):
    return Tool(f"{table}-drain", table, "two psql, COPY BINARY to the null device",
                lambda c, out: psql_halves(c, table, lambda n: "/dev/null", "format binary"), None,
                note="what the server can send: nothing is decoded, nothing is kept")  # fmt: skip


def psql_csv(table):
    return Tool(f"{table}-psql-csv", table, "two psql, COPY CSV",
                lambda c, out: psql_halves(c, table, lambda n: f"{out}/{n}.csv", "format csv, header"), "csv",
                note="the server formats")  # fmt: skip


def duckdb(table, output, s3=False):
    # Version 2 of Parquet has the encodings that we use too: they take it less time and fewer bytes than its version 1.
    options = ", compression zstd, compression_level 1, parquet_version v2, row_group_size 122880"
    options = options if output == "parquet" else ""

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
            f"{store}load '{context.extension}'; {DUCKDB_SETTINGS} "
            f"attach '{host}' as pg (type postgres, read_only); "
            f"copy pg.public.{table} to '{target}' (format {output}, per_thread_output{options});"
        )
        return [[context.duckdb, "-no-init", "-bail", "-c", sql]]

    digest = "lower(hex(digest))" if output == "parquet" else "lower(hex(digest::blob))"
    payload = "(payload->>'$')::json" if output == "json" else "payload::json"
    needs = ("duckdb-cli", "duckdb-extension-postgres-scanner", *(["duckdb-extension-httpfs"] if s3 else []))
    title = f"DuckDB, {output}" + (", version 2, zstd 1" if options else "") + (", to S3" if s3 else "")
    return Tool(f"s3-duckdb-{output}" if s3 else f"{table}-duckdb-{output}", table, title, commands, output,
                note=duckdb_note(table, output), needs=needs, digest=digest, payload=payload, lossy=True,
                s3=s3)  # fmt: skip


def duckdb_note(table, output):
    """Its settings, and what it writes otherwise than we do, column for column."""
    groups = ", row groups of 122,880" if output == "parquet" else ""
    settings = f"2 threads, order not kept, pg_use_ctid_scan{groups}"
    if table == "events":
        return f"{settings}; numeric without a scale as double" + ("; jsonb as a string" if output == "json" else "")
    return f"{settings}; character(n) without its blanks" + ("; numeric as doubles" if output == "json" else "")


def arrow(name, title, needs, note):
    def commands(context, out):
        return [[context.python, f"{HERE}/arrow_peer.py", name, context.url.replace("postgres:", "postgresql:"),
                 "lineitem", f"{out}/all.parquet"]]  # fmt: skip

    return Tool(f"lineitem-{name}", "lineitem", title, commands, "parquet", note=note, needs=(*needs, "pyarrow"),
                lossy=True)  # fmt: skip


def sling():
    """Two of them, each with half of the blocks: its own ranges in parallel are for those who pay."""

    def commands(context, out, name, options):
        return [
            # It writes Parquet by DuckDB, of which it would download one.
            ["env", f"SLING_HOME_DIR={context.sling_home}", f"HOME={context.sling_home}", f"DUCKDB_PATH={context.duckdb}",
             "SLING_DISABLE_TELEMETRY=true", f"SOURCE={context.url}?sslmode=disable", context.sling,
             "run", "--src-conn", "SOURCE", "--src-stream", "public.lineitem", "--where", blocks, "--tgt-object",
             f"file://{out}/{n}.{name}", *options]
            for n, blocks in enumerate(halves(context, "lineitem"))
        ]  # fmt: skip

    note = "one round; two of them, each half of the blocks (its ranges in parallel need a licence)"
    needs = (SLING, "duckdb-cli", "duckdb-extension-json", "duckdb-extension-httpfs")
    # Into one file it writes part after part, each over the one before: only a folder of files has all rows.
    folder = ["--tgt-options", "{compression: zstd, file_max_rows: 10000000}"]
    return [
        Tool("lineitem-sling-parquet", "lineitem", "Sling, Parquet, zstd",
             lambda c, out: commands(c, out, "parquet", folder), "parquet",
             note=f"{note}; DuckDB writes; file_max_rows, for into one file it loses rows", needs=needs, slow=True),
        Tool("lineitem-sling-csv", "lineitem", "Sling, CSV", lambda c, out: commands(c, out, "csv", []), "csv",
             note=note, needs=(SLING,), slow=True),
    ]  # fmt: skip


def rivet():
    def tool(output, title, options):
        def files(out):
            export = {"name": "lineitem", "table": "public.lineitem", **RIVET_SETTINGS, "format": output, **options,
                      "destination": {"type": "local", "path": f"{out}/files"}}  # fmt: skip
            source = {"type": "postgres", "url_env": "SOURCE", "tls": {"mode": "disable"},
                      "tuning": {"profile": "fast"}}  # fmt: skip
            # JSON is YAML.
            return {"rivet.yaml": json.dumps({"source": source, "exports": [export]})}

        def commands(context, out):
            return [["env", f"SOURCE={context.url}", context.rivet, "run", "--config", f"{out}/rivet.yaml"]]

        return Tool(f"lineitem-rivet-{output}", "lineitem", title, commands, output, note=RIVET_NOTE,
                    needs=("rivet-cli",), files=files)  # fmt: skip

    return [
        tool("parquet", "Rivet, Parquet, zstd 1", {"compression": "zstd", "compression_level": 1}),
        tool("csv", "Rivet, CSV", {}),
    ]


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
        duckdb(table, "parquet"),
        duckdb(table, "csv"),
        duckdb(table, "json"),
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
        *sling(),
        *rivet(),
        pg_dump("lineitem"),
        drain("events"),
        *formats("events"),
        outhaul("s3-parquet", "lineitem", "Outhaul, Parquet to S3", "parquet", s3=True),
        duckdb("lineitem", "parquet", s3=True),
        outhaul("s3-csv", "lineitem", "Outhaul, CSV to S3", "csv", "--format", "csv", s3=True),
        drain(tables.FAR),
        outhaul("far-parquet", tables.FAR, "Outhaul, Parquet, zstd 1", "parquet"),
        duckdb(tables.FAR, "parquet"),
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
