"""Exports every relation of a database in every format and compares every value with PostgreSQL's own.

differential.py DATABASE_URL [--formats LIST] [--only PATTERN] [--keep DIR] [--system] [--jobs N] [--show N]

Every table, partitioned table, view, materialized view and foreign table is exported by the binary that OUTHAUL names,
and compared as a multiset of rows, as the order may differ:

  csv, csv.gz          with the raw records of COPY (SELECT …) TO STDOUT (FORMAT csv), byte for byte, and its header
  ndjson, ndjson.zst   with row_to_json, whitespace between tokens taken out, byte for byte
  parquet              as read by pyarrow and by DuckDB, each value brought to PostgreSQL's text (values.py), with the
                       records of COPY

The server prints its side under DateStyle ISO, IntervalStyle postgres, TimeZone UTC and bytea hex, through psql. The
compressed ones are read by several readers from several partitions. Nobody may change the database meanwhile.

A line for each relation and format:

  ok        equal
  text      Parquet's types cannot hold a value (exit 14); equal with --on-unrepresentable text
  unread    PostgreSQL itself cannot read it
  empty     no columns, which the exporter refuses (exit 2)
  refused   the exporter refused what PostgreSQL reads
  differs   rows differ; the first ones follow

The exit code is 1 where there is a line `refused` or `differs`, or none at all.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib

import duckdb
import pyarrow as pa
import pyarrow.parquet

import oracle
import values

FORMATS = ("parquet", "csv", "ndjson", "csv.gz", "ndjson.zst")
OPTIONS = {
    "parquet": ("--format", "parquet"),
    "csv": ("--format", "csv", "--readers", "1"),
    "ndjson": ("--format", "ndjson", "--readers", "1"),
    "csv.gz": ("--format", "csv", "--compression", "gzip", "--readers", "2", "--partitions", "3"),
    "ndjson.zst": ("--format", "ndjson", "--compression", "zstd", "--readers", "3", "--partitions", "4"),
}
# What the exporter answers where a value does not fit, and where a request cannot be met.
UNREPRESENTABLE, USAGE = 14, 2
EXPORT_SECONDS_MAX = 1800
BATCH_ROWS = 16_384
CHUNK_BYTES = 1 << 20
# Of rows that differ: so many are kept to be paired with one another, and each value is shown in so many characters.
KEPT_MAX = 200
SHOWN_CHARACTERS = 300

SETTINGS = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "row_security": "off",
    "statement_timeout": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

# Views of the catalogs that show the session itself, or what reading them changes.
CHANGING = "^pg_(stat_|statio_|backend_memory_contexts|cursors|locks|settings)"

RELATIONS = """
select json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'columns', (
    select coalesce(json_agg(json_build_array(a.attname, a.atttypid::int8) order by a.attnum), '[]')
    from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped))
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and n.nspname !~ '^pg_toast'
    and (n.nspname in ('pg_catalog', 'information_schema')) = {system}
    and not (n.nspname = 'pg_catalog' and c.relname ~ '{changing}')
order by n.nspname, c.relname
"""

TYPES = """
select json_build_object('oid', t.oid::int8, 'name', t.typname, 'type', t.typtype, 'base', t.typbasetype::int8,
    'element', (select json_build_array(e.oid::int8, e.typdelim) from pg_catalog.pg_type e
        where e.oid = t.typelem and e.typarray = t.oid),
    'bound', (select g.rngsubtype::int8 from pg_catalog.pg_range g where t.oid in (g.rngtypid, g.rngmultitypid)),
    'attributes', (select json_agg(a.atttypid::int8 order by a.attnum) from pg_catalog.pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
from pg_catalog.pg_type t
"""


class Unread(Exception):
    """PostgreSQL's own message, where it cannot answer a query itself."""


class Refused(Exception):
    """An export that did not end well: its exit code and what it said."""

    def __init__(self, code, said):
        super().__init__(f"exit {code}: {said}")
        self.code = code


class Differs(Exception):
    """What is wrong with an export."""


# --- PostgreSQL's side.


class Server:
    """Queries, through psql."""

    def __init__(self, url):
        self.url = url
        self.kinds = {}

    def copy(self, query, options, **settings):
        """The bytes of a COPY of a query, in chunks."""
        copy = f"copy ({query}) to stdout (format csv{options})"
        chosen = " ".join(f"-c {name}={value}" for name, value in {**SETTINGS, **settings}.items())
        environment = {**os.environ, "PGOPTIONS": chosen, "PGCLIENTENCODING": "UTF8", "PGAPPNAME": "differential"}
        # They would win over the options.
        for name in ("PGTZ", "PGDATESTYLE"):
            environment.pop(name, None)
        # From a file, as an argument could not be as long as 1,600 names make it.
        with tempfile.TemporaryFile() as script, tempfile.TemporaryFile() as errors:
            script.write((copy + ";\n").encode())
            script.seek(0)
            command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", self.url]
            psql = subprocess.Popen(command, stdin=script, stdout=subprocess.PIPE, stderr=errors, env=environment)
            try:
                while chunk := psql.stdout.read(CHUNK_BYTES):
                    yield chunk
                code = psql.wait()
            finally:
                psql.kill()
                psql.wait()
            if code != 0:
                errors.seek(0)
                raise Unread(errors.read().decode(errors="replace").strip().splitlines()[0])

    def objects(self, query):
        """The rows of a query that gives one JSON value each."""
        return [json.loads(fields(record)[0]) for record in records(self.copy(query, ""))]

    def kind(self, oid):
        """A type and what it is made of."""
        if not self.kinds:
            self.kinds = {row["oid"]: row for row in self.objects(TYPES)}
        row = self.kinds[oid]
        if row["type"] == "d":
            return self.kind(row["base"])
        if row["element"] is not None:
            element, delimiter = row["element"]
            return values.Kind(row["name"], "array", (self.kind(element),), delimiter)
        if row["type"] == "c":
            return values.Kind(row["name"], "composite", tuple(map(self.kind, row["attributes"] or ())))
        if row["type"] in ("r", "m"):
            span = values.Kind(row["name"], "range", (self.kind(row["bound"]),))
            return span if row["type"] == "r" else values.Kind(row["name"], "multirange", (span,))
        return values.Kind(row["name"])


def quote_name(name):
    return '"' + name.replace('"', '""') + '"'


class Relation:
    """A relation, and the bytes that PostgreSQL makes of it."""

    def __init__(self, server, row):
        self.server = server
        self.columns = [name for name, _ in row["columns"]]
        self.types = [oid for _, oid in row["columns"]]
        self.name = f"{quote_name(row['schema'])}.{quote_name(row['name'])}"
        self.query = f"select {', '.join(map(quote_name, self.columns))} from {self.name}"

    def expected(self, format):
        """What PostgreSQL says: records, as the exporter's have to be."""
        if "csv" in format:
            return records(self.server.copy(self.query, ""))
        if "ndjson" in format:
            # A name that no column has.
            alias = quote_name("outhaul differential")
            query = f"select row_to_json({alias}) from ({self.query}) as {alias}"
            return map(compact, (unquote(record) for record in records(self.server.copy(query, ", force_quote *"))))
        return records(self.server.copy(self.query, ", force_quote *", lc_monetary="C"))

    def header(self):
        first = records(self.server.copy(self.query + " limit 0", ", header"))
        return next(first)


# --- Records: raw bytes of a row, without the line end.


def records(chunks):
    """The records of a CSV stream: what ends with a line feed that does not stand in quotes."""
    return pieces(chunks, quoted=True)


def lines(chunks):
    return pieces(chunks, quoted=False)


def pieces(chunks, quoted):
    pending, quotes = [], 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            pending.append(piece)
            quotes += piece.count(b'"') if quoted else 0
            if quotes % 2:
                pending.append(b"\n")
                continue
            yield b"".join(pending)
            pending, quotes = [], 0
        pending.append(rest)
        quotes += rest.count(b'"') if quoted else 0
    if quotes % 2 or any(pending):
        raise Differs(f"the last row has no end: {shown(b''.join(pending))}")


def unquote(record):
    """The value of a record whose only field stands in quotes."""
    return record[1:-1].replace(b'""', b'"')


def fields(record):
    """The values of a CSV record, None for NULL."""
    text = record.decode("utf-8", "surrogateescape")
    return oracle.parse_csv(text + "\n", ",", "")[0]


TOKEN = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


def compact(document):
    """JSON without whitespace between its tokens."""
    return TOKEN.sub(lambda match: match.group(1) or b"", document)


def as_record(row):
    """A CSV record with every value in quotes, as force_quote makes it."""
    return ",".join(["" if value is None else '"' + value.replace('"', '""') + '"' for value in row])


# --- The export's side.


class Export:
    """One export into a folder; `refused` or wrong ones raise."""

    def __init__(self, binary, relation, format, folder, *more):
        self.relation, self.format, self.folder = relation, format, folder
        command = [binary, "export", "--from", relation.server.url, "--table", relation.name, "--to", folder]
        command += ["--progress", "none", "--report", "json", "--quiet", *OPTIONS[format], *more]
        self.command = shlex.join(command)
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=EXPORT_SECONDS_MAX, check=False
        )
        if run.returncode != 0:
            said = run.stderr.decode(errors="replace").strip()
            try:
                said = json.loads(run.stdout.splitlines()[-1])["error"]
            except (IndexError, KeyError, ValueError):
                pass
            raise Refused(run.returncode, said)
        place = oracle.Folder(folder)
        with open(os.path.join(folder, "_manifest.json"), encoding="utf-8") as file:
            self.manifest = json.load(file)
        problems = []
        found = oracle.check_objects(place, self.manifest, True, problems)
        self.parts = [(place.get(part["path"]), part) for part in self.manifest["parts"] if part["path"] in found]
        if problems:
            raise Differs("; ".join(problems))

    def paths(self):
        return [path for path, _ in self.parts]

    def views(self):
        """By whom it is read, and a function that gives the records."""
        if "csv" in self.format:
            return [("", self.csv)]
        if "ndjson" in self.format:
            return [("", self.ndjson)]
        return [("pyarrow: ", self.pyarrow), ("DuckDB: ", self.duckdb)]

    def csv(self):
        header = self.relation.header()
        for path, part in self.parts:
            found = records(chunks_of(path))
            if next(found, None) != header:
                raise Differs(f"{part['path']} does not begin with the header {shown(header)}")
            yield from found

    def ndjson(self):
        for path, _ in self.parts:
            yield from lines(chunks_of(path))

    def pyarrow(self):
        for path in self.paths():
            with pyarrow.parquet.ParquetFile(path) as file:
                self.check_names(file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    yield from self.rendered(batch)

    def duckdb(self):
        with duckdb.connect() as database:
            database.execute("set TimeZone = 'UTC'")
            database.execute("set threads = 1")
            found = database.sql(f"select * from read_parquet({oracle.sql_list(self.paths())})")
            # DuckDB's names do not differ in case alone: it adds a number.
            names = (re.sub(r"_\d+$", "", name) if name not in self.relation.columns else name for name in found.columns)
            self.check_names(list(names))
            for batch in found.to_arrow_reader(BATCH_ROWS):
                yield from self.rendered(batch)

    def check_names(self, names):
        if names != self.relation.columns:
            raise Differs(f"the columns are {names}, not {self.relation.columns}")

    def rendered(self, batch):
        server = self.relation.server
        columns = [
            values.texts(column, server.kind(oid)) for column, oid in zip(batch.columns, self.relation.types, strict=True)
        ]
        for row in zip(*columns):
            yield as_record(row).encode("utf-8", "surrogateescape")


def chunks_of(path):
    if path.endswith(".zst"):
        with pa.CompressedInputStream(path, "zstd") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
        return
    with open(path, "rb") as file:
        # A gzip member may be followed by others.
        inflate = zlib.decompressobj(31) if path.endswith(".gz") else None
        while chunk := file.read(CHUNK_BYTES):
            if inflate is None:
                yield chunk
                continue
            while chunk:
                yield inflate.decompress(chunk)
                chunk = inflate.unused_data
                if inflate.eof:
                    inflate = zlib.decompressobj(31)
        if inflate is not None and inflate.flush():
            raise Differs(f"{path} ends within a gzip member")


# --- Comparison.


def digest(record):
    return hashlib.blake2b(record, digest_size=16).digest()


class Comparison:
    """One relation: what PostgreSQL says is asked once for all formats that share it."""

    def __init__(self, relation):
        self.relation = relation
        self.known = {}

    def expected(self, format):
        shape = format.split(".")[0]
        if shape not in self.known:
            self.known[shape] = collections.Counter(map(digest, self.relation.expected(format)))
        return self.known[shape]

    def check(self, export, show):
        """How many rows there are; raises where they are not the same."""
        expected = self.expected(export.format)
        for reader, view in export.views():
            surplus = collections.Counter()
            for record in view():
                surplus[digest(record)] += 1
            surplus.subtract(expected)
            if any(surplus.values()):
                raise Differs(reader + self.explain(surplus, export, view, show))
        rows = sum(expected.values())
        if export.manifest["totals"]["rows"] != rows:
            raise Differs(f"the manifest says {export.manifest['totals']['rows']} rows, there are {rows}")
        return rows

    def explain(self, surplus, export, view, show):
        """The rows that only one side has, each beside the one that is most like it."""
        theirs = [record for record in self.relation.expected(export.format) if surplus[digest(record)] < 0]
        ours = [record for record in view() if surplus[digest(record)] > 0]
        missing = -sum(count for count in surplus.values() if count < 0)
        extra = sum(count for count in surplus.values() if count > 0)
        text = [f"{missing} rows are missing, {extra} rows are not PostgreSQL's"]
        read = members if "ndjson" in export.format else lambda record: list(zip(self.relation.columns, fields(record)))
        left = [read(record) for record in ours[:KEPT_MAX]]
        for record in theirs[:show]:
            row = read(record)
            twin = max(left, key=lambda other: sum(a == b for a, b in zip(row, other)), default=None)
            if twin is None:
                text.append(f"missing: {shown(record)}")
                continue
            left.remove(twin)
            if row == twin:
                text.append(f"written otherwise: {shown(record)}, exported {shown(ours[0])}")
            for (name, value), (other_name, other) in zip(row, twin):
                if (name, value) != (other_name, other):
                    text.append(f"column {quote_name(name)}: {shown(value)}, exported {shown(other)}")
            if len(row) != len(twin):
                text.append(f"{len(row)} columns, exported {len(twin)}")
        for row in left[:show] if missing < extra else ():
            text.append(f"not PostgreSQL's: {shown(row)}")
        return "\n          ".join(text)


def members(record):
    """Names and values of a JSON object, as written."""
    text = record.decode("utf-8", "surrogateescape")
    try:
        pairs = json.JSONDecoder(object_pairs_hook=oracle.Members, parse_float=oracle.Number, parse_int=oracle.Number)
        found = pairs.decode(text)
    except ValueError as error:
        return [("not JSON", f"{error}: {text}")]
    return [(name, oracle.dump_json(value)) for name, value in found]


def shown(value):
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    text = "NULL" if text is None else ascii(text) if any(ord(c) < 32 for c in str(text)) else repr(text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


# --- The whole.


def judge(comparison, format, options):
    """The word and the rest of the line for one relation in one format."""
    relation = comparison.relation
    folder = os.path.join(options.keep, f"{hashlib.md5(relation.name.encode()).hexdigest()[:12]}-{format}")
    try:
        try:
            export = Export(options.binary, relation, format, folder)
        except Refused as refused:
            if refused.code == USAGE and not relation.columns:
                return "empty", str(refused)
            if refused.code != UNREPRESENTABLE or format != "parquet":
                comparison.expected(format)
                return "refused", str(refused)
            shutil.rmtree(folder, ignore_errors=True)
            export = Export(options.binary, relation, format, folder, "--on-unrepresentable", "text")
            return "text", f"{comparison.check(export, options.show)} rows; {refused}"
        return "ok", f"{comparison.check(export, options.show)} rows"
    except Unread as unread:
        return "unread", str(unread)
    except Refused as refused:
        return "refused", f"with --on-unrepresentable text: {refused}"
    except Differs as differs:
        return "differs", f"{differs}\n          the export: {folder if options.kept else export_hint(relation, format)}"
    except (subprocess.TimeoutExpired, OSError, ValueError, TypeError, duckdb.Error, pa.ArrowException) as error:
        return "differs", f"{type(error).__name__}: {error}"
    finally:
        if not options.kept:
            shutil.rmtree(folder, ignore_errors=True)


def export_hint(relation, format):
    return shlex.join(["outhaul", "export", "--table", relation.name, *OPTIONS[format]])


def clean(text, kept=""):
    """Text that changes nothing on a terminal: names and values may hold anything."""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url", metavar="DATABASE_URL")
    arguments.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    arguments.add_argument("--only", default="", help='regular expression for "schema"."name"')
    arguments.add_argument("--keep", metavar="DIR", help="keep the exports in this folder")
    arguments.add_argument("--system", action="store_true", help="the catalogs instead of everything else")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count(), help="relations at the same time")
    arguments.add_argument("--show", type=int, default=3, help="rows that differ to show")
    options = arguments.parse_args()
    options.binary = os.environ["OUTHAUL"]
    options.kept = options.keep is not None
    formats = options.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        arguments.error(f"--formats: no {', '.join(sorted(unknown))}")

    server = Server(options.url)
    rows = server.objects(RELATIONS.format(system="true" if options.system else "false", changing=CHANGING))
    relations = [Relation(server, row) for row in rows]
    relations = [relation for relation in relations if re.search(options.only, relation.name)]
    server.kind(16)  # The types are read before there are threads.
    counts = collections.Counter()

    def work(relation):
        comparison = Comparison(relation)
        return [(format, *judge(comparison, format, options)) for format in formats]

    with tempfile.TemporaryDirectory(prefix="outhaul-differential-") as folder:
        options.keep = os.path.abspath(options.keep) if options.kept else folder
        os.makedirs(options.keep, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for relation, results in zip(relations, pool.map(work, relations)):
                for format, word, rest in results:
                    counts[word] += 1
                    said = clean(rest, kept="\n")
                    print(f"{word:9} {format:10} {clean(relation.name)} — {said}", flush=True)
    summary = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    print(f"{len(relations)} relations, {len(formats)} formats: {summary or 'nothing to compare'}")
    sys.exit(1 if counts["differs"] or counts["refused"] or not counts else 0)


if __name__ == "__main__":
    main()
