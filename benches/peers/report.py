"""Tables and bars from what was measured."""

import json
import os
import statistics
from dataclasses import dataclass

import chart
import s3_requests
from tables import FAR

# How much slower than a single reader is noise.
NOISE = 1.05


@dataclass
class Bar:
    text: str
    limit: float
    value: float | None
    stretch: float | None = None
    unit: str = ""

    def line(self):
        if self.value is None:
            return f"| {self.text} | {self.limit:g}{self.unit} | - | not measured |"
        verdict = "pass" if self.value <= self.limit else "**miss**"
        if self.stretch is not None and self.value <= self.stretch:
            verdict = "pass, stretch too"
        stretch = f" (stretch {self.stretch:g})" if self.stretch is not None else ""
        return f"| {self.text} | {self.limit:g}{self.unit}{stretch} | {self.value:.3g}{self.unit} | {verdict} |"


def bars(found):
    tools, start, memory = found["tools"], found["start_s"], found["memory"]

    def of(name, what, source=None):
        tool = (tools if source is None else source).get(name)
        return tool["median"][what] if tool and tool["median"] else None

    def ratio(name, other, what="wall_s", source=None):
        left, right = of(name, what, source), of(other, what, source)
        return left / right if left is not None and right else None

    def flushed(name, other):
        left, right = ((of(tool, "wall_s"), of(tool, "flush_s")) for tool in (name, other))
        return sum(left) / sum(right) if None not in (*left, *right) else None

    def milliseconds(name):
        return statistics.median(start[name]) * 1000 if start.get(name) else None

    small, large = milliseconds("plan_of_one_row"), milliseconds("plan_of_lineitem")
    return [
        Bar("Parquet: wall / DuckDB's", 0.72, ratio("lineitem-parquet", "lineitem-duckdb-parquet")),
        Bar("Parquet: client CPU / DuckDB's", 0.50, ratio("lineitem-parquet", "lineitem-duckdb-parquet", "cpu_s"), 0.40),
        Bar("Parquet: bytes / DuckDB's", 1.0, ratio("lineitem-parquet", "lineitem-duckdb-parquet", "output_mb")),
        Bar("Parquet: wall / the drain's", 1.25, ratio("lineitem-parquet", "lineitem-drain")),
        Bar("CSV: wall / two psql's COPY CSV, both flushed", 1.0, flushed("lineitem-csv", "lineitem-psql-csv")),
        Bar("CSV: wall / DuckDB's", 0.55, ratio("lineitem-csv", "lineitem-duckdb-csv")),
        Bar("NDJSON: wall / DuckDB's", 0.42, ratio("lineitem-ndjson", "lineitem-duckdb-json")),
        Bar("Parquet: peak memory", 160, of("lineitem-parquet", "rss_mb"), unit=" MB"),
        Bar("CSV: peak memory", 64, of("lineitem-csv", "rss_mb"), unit=" MB"),
        Bar("NDJSON: peak memory", 64, of("lineitem-ndjson", "rss_mb"), unit=" MB"),
        *(Bar(f"{name}: peak memory of five times the rows / of lineitem", 1.10,
              ratio(f"memory-lineitem5-{name}", f"memory-lineitem-{name}", "rss_mb", memory))
          for name in ("parquet", "csv", "ndjson")),
        Bar("start to first byte read, table of one row", 150, milliseconds("first_byte_of_one_row"), unit=" ms"),
        Bar("start to first byte read, lineitem", 150, milliseconds("first_byte_of_lineitem"), unit=" ms"),
        # Planning asks the catalogs the same questions of each; 10 ms is what a busy moment costs.
        Bar("plan of lineitem, beyond that of one row", 10, None if small is None else large - small, unit=" ms"),
        Bar("Parquet to S3: wall / DuckDB's", 0.68, ratio("s3-parquet", "s3-duckdb-parquet")),
        Bar("Parquet: wall to S3 / to disk", 1.25, ratio("s3-parquet", "lineitem-parquet")),
        Bar("CSV: wall to S3 / to disk", 1.25, ratio("s3-csv", "lineitem-csv")),
        Bar("8 readers: wall / one reader's", NOISE, ratio("more-readers-than-cores", "one-reader")),
        Bar("one partition, 2 readers: wall / one reader's", NOISE, ratio("one-partition", "one-reader")),
        Bar("very wide rows, 2 readers: wall / one reader's", NOISE, ratio("wide", "wide-one-reader")),
        Bar("100 rows, 2 readers: wall / one reader's", NOISE, ratio("tiny", "tiny-one-reader")),
    ]  # fmt: skip


def tool_table(tools):
    """One row a tool."""
    lines = ["| tool | wall s | client CPU s | server CPU s | peak MB | output MB | flush s | wall, least to most | checked | "
             "note |", "|---|---:|---:|---:|---:|---:|---:|---|---|---|"]  # fmt: skip
    for tool in tools:
        median, runs = tool["median"], tool["runs"]
        if median is None:
            lines.append(f"| {tool['title']} | - | - | - | - | - | - | - | - | {tool['absent'] or 'not run'} |")
            continue
        problems = sorted({problem for run in runs for problem in run["problems"]})
        walls = [run["wall_s"] for run in runs]
        digits = 2 if median["wall_s"] >= 1 else 3
        lines.append(
            f"| {tool['title']} | {median['wall_s']:.{digits}f} | {median['cpu_s']:.{digits}f} | "
            f"{median['server_cpu_s']:.2f} | {median['rss_mb']:.0f} | {median['output_mb']:.1f} | {median['flush_s']:.2f} | "
            f"{min(walls):.{digits}f}-{max(walls):.{digits}f} | {verdict(tool, problems)} | {tool['note']} |"
        )
    return "\n".join(lines)


def verdict(tool, problems):
    if problems:
        return "**wrong**: " + "; ".join(problems)[:300].replace("\n", " ").replace("|", "\\|")
    return "right" if tool["output"] else "-"


def ratio_table(found):
    """Ours to each peer, of the same table and format."""
    pairs = [
        ("parquet", ("duckdb-parquet", "connectorx", "adbc", "sling-parquet", "rivet-parquet", "drain")),
        ("csv", ("duckdb-csv", "psql-csv", "sling-csv", "rivet-csv", "pg-dump")),
        ("ndjson", ("duckdb-json",)),
    ]
    lines = ["| ours | peer | wall | client CPU | peak memory | output |", "|---|---|---:|---:|---:|---:|"]
    for table in ("lineitem", "events", "s3", FAR):
        for ours, peers in pairs:
            for peer in peers:
                left, right = (found["tools"].get(f"{table}-{name}") for name in (ours, peer))
                if not left or not right or not left["median"] or not right["median"]:
                    continue
                values = (
                    f"{left['median'][what] / right['median'][what]:.2f}" if right["median"][what] else "-"
                    for what in ("wall_s", "cpu_s", "rss_mb", "output_mb")
                )
                lines.append(f"| {table}, {ours} | {right['title']} | {' | '.join(values)} |")
    return "\n".join(lines)


def request_table(found):
    """Requests of one run by kind, and their price."""
    used = [kind for kind in s3_requests.KINDS if any(run["counts"].get(kind) for run in found["requests"].values())]
    titles = " | ".join(s3_requests.KINDS[kind][0] for kind in used)
    lines = [f"| tool | {titles} | total | USD |", "|---|" + "---:|" * (len(used) + 2)]
    for name, run in found["requests"].items():
        counts = " | ".join(str(run["counts"].get(kind, 0)) for kind in used)
        total = sum(run["counts"].values())
        lines.append(f"| {found['tools'][name]['title']} | {counts} | {total} | {run['usd']:.6f} |")
    return "\n".join(lines)


def sections(found):
    """The tables of every tool; those to S3 and from a far server in sections of their own, which say what that is."""
    way = found["far"]
    prose = {
        "S3": "lineitem to the S3 server on the same machine.\n\n",
        "A far server": (
            f"A tenth of lineitem, by a relay: every byte arrives {way['round_trip_s'] * 500:.0f} ms later, in each "
            f"direction, and the line takes {way['bytes_per_s'] / 1e6:.0f} MB a second for all connections together. It "
            "has no slow start, which a real line has, and what the relay needs of the same cores, about a tenth of one, "
            "is in none of the columns.\n\n"
        ),
    }
    groups = {}
    for tool in (tool for tool in found["tools"].values() if tool["median"] or tool["absent"]):
        title = "S3" if tool["s3"] else "A far server" if tool["table"] == FAR else tool["table"]
        groups.setdefault(title, []).append(tool)
    parts = [f"## {title}\n\n{prose.get(title, '')}{tool_table(tools)}" for title, tools in groups.items()]
    if found["requests"]:
        parts.append(
            "## Requests to S3\n\nOf one more run each, which is not timed, counted by a relay in front of the server. "
            f"USD are by the usual list price: {1000 * s3_requests.WRITE:.3f} for 1,000 PUT, POST and LIST, "
            f"{1000 * s3_requests.READ:.4f} for 1,000 GET and HEAD, nothing for DELETE; a multipart upload pays for "
            f"its create, each part, and its complete.\n\n{request_table(found)}"
        )
    return parts


def start_table(found):
    lines = ["| | median ms | least | most | runs |", "|---|---:|---:|---:|---:|"]
    for name, values in found["start_s"].items():
        least, middle, most = (1000 * value for value in (min(values), statistics.median(values), max(values)))
        lines.append(f"| {name.replace('_', ' ')} | {middle:.0f} | {least:.0f} | {most:.0f} | {len(values)} |")
    return "\n".join(lines)


def memory_table(found):
    lines = ["| run | peak MB | wall s | output MB |", "|---|---:|---:|---:|"]
    for name, tool in found["memory"].items():
        median = tool["median"]
        figures = f"{median['rss_mb']:.1f} | {median['wall_s']:.2f} | {median['output_mb']:.1f}"
        lines.append(f"| {name.removeprefix('memory-')} | {figures} |")
    return "\n".join(lines)


def page(found):
    about = found["about"]
    sizes = ", ".join(f"{name} {table['rows']:,}" for name, table in found["tables"].items())
    parts = [
        f"# Outhaul and its peers, {about['date']}",
        f"{about['cores']} cores of {about['cpu']}, {about['memory_gb']} GB of memory, kernel {about['kernel']}, output to "
        f"{about['disk']}. {about['versions']['server'].split(' on ')[0]} on the same machine, tables in its cache "
        f"(shared_buffers {about['settings']['shared_buffers']}). Commit {about['commit']}. "
        f"Rounds: {about['rounds']}; in each, every tool ran once, in rotated order. Figures are medians.",
        f"Rows: {sizes}.",
        "Wall and client CPU are those of the whole client process or processes, its start included; the CPU of the "
        "database server meanwhile is in a column of its own. Peak memory is the sum over the processes. MB are millions of bytes. Outhaul flushes what it writes "
        'to the disk before it commits, and that is in its wall time; the peers leave it to the system, and "flush" is '
        "how long a sync took after each run. The S3 server stores on the same disk and takes its CPU from the same "
        "cores. What every run wrote was read again, and row count and aggregates of every column were compared with "
        "PostgreSQL's own (of pg_dump's only the count).",
    ]
    parts += sections(found)
    if found["tools"]:
        parts.append(f"## Outhaul's figures by its peers'\n\n{ratio_table(found)}")
    if found["start_s"]:
        parts.append(
            "## Start\n\nThe way to the first byte is from the start of the program to the first CopyData message that "
            f"the server sends, seen by a relay between the two.\n\n{start_table(found)}"
        )
    if found["memory"]:
        parts.append(f"## Memory\n\n{memory_table(found)}")
    lines = "\n".join(bar.line() for bar in bars(found))
    parts.append(f"## Bars\n\n| bar | at most | measured | |\n|---|---:|---:|---|\n{lines}")
    versions = "\n".join(
        f"- {name} {version}" for name, version in about["versions"]["peers"].items()
    ) + f"\n- {about['versions']['psql']}\n- {about['versions']['seaweedfs']}"
    parts.append(
        "## Versions\n\nPeers are at the newest version of which a package registry has every part: of DuckDB there are "
        "newer ones, but the extension for PostgreSQL is not packaged for them, and of Sling, which then download their "
        f"program from elsewhere when they are first called.\n\n{versions}"
    )
    parts.append(
        "Every single run, the commands and the server's settings are in [results.json](results.json). "
        "To repeat it: `scripts/bench`."
    )
    return "\n\n".join(parts) + "\n"


def write(found, folder):
    """Prints the page and keeps it with all figures."""
    text = page(found)
    print(text, end="", flush=True)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/results.json", "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    with open(f"{folder}/README.md", "w", encoding="utf-8") as file:
        file.write(text)
    chart.draw(f"{folder}/results.json")
