"""The harness behind scripts/bench, which says what it does and starts the servers that it needs.

Only the standard library: this process must stay small, because what it holds counts into the peak memory that the
system reports for what it starts (see measure.run).
"""

import argparse
import dataclasses
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import check
import environment
import measure
import report
import s3_requests
import tables
import tools
from far import Far

RUNS_OF_START = 20
RUNS_OF_MEMORY = 3
# The long way: another region of the same continent, by a good line.
FAR_ROUND_TRIP_S = 0.040
FAR_BYTES_PER_S = 50_000_000


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.exports = f"{arguments.work}/exports"
        self.errors = f"{arguments.work}/stderr"
        self.environment = {
            name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ
        } | {"TZ": "UTC", "LANG": "C.UTF-8", "TMPDIR": arguments.work}
        self.s3 = {
            "AWS_ENDPOINT": os.environ["OUTHAUL_TEST_S3_ENDPOINT"],
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": os.environ["OUTHAUL_TEST_S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": os.environ["OUTHAUL_TEST_S3_SECRET_KEY"],
        }
        self.packages = environment.packages(arguments.peers) | environment.rivet(arguments.rivet)
        self.context = self.programs()
        with open(f"{self.psql('show data_directory')}/postmaster.pid", encoding="ascii") as pid:
            self.server = int(pid.readline())
        self.expected = {}
        self.far = None
        self.wrong = False
        os.makedirs(self.exports, exist_ok=True)

    def programs(self):
        peers = self.arguments.peers
        duckdb = environment.program(peers, "duckdb_cli", "duckdb") or f"{peers}/bin/duckdb"
        httpfs = environment.duckdb_extension(peers, "httpfs")
        return tools.Context(
            outhaul=self.arguments.outhaul,
            url=self.arguments.url,
            port=port_of(self.arguments.url),
            duckdb=duckdb,
            extension=environment.duckdb_extension(peers),
            httpfs=httpfs,
            sling=environment.program(peers, "sling_linux_*", "bin/sling-*"),
            sling_home=environment.sling_home(
                f"{self.arguments.work}/sling", duckdb, [environment.duckdb_extension(peers, "json"), httpfs]
            ),
            rivet=self.arguments.rivet,
            s3=self.s3,
            python=f"{peers}/bin/python",
            bucket=os.environ["OUTHAUL_TEST_S3_BUCKET"],
            blocks={},
        )

    def psql(self, sql):
        asked = subprocess.run(
            ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--tuples-only", "--no-align",
             f"--dbname={self.context.url}", "--file=-"],
            input=sql, capture_output=True, text=True, check=False, env=self.environment,
        )  # fmt: skip
        if asked.returncode != 0:
            sys.exit(f"error: psql: {asked.stderr.strip()}")
        return asked.stdout.strip()

    def load(self, table):
        """Makes a table, brings it into the server's cache, and asks what is in it."""
        say(f"making {table.name}")
        if table.make is None:
            load = [f"{self.arguments.root}/scripts/tpch", "load", self.arguments.scale, self.context.url]
            subprocess.run(load, check=True, stdout=sys.stderr)
        else:
            # In the transaction that makes the table, wal_level minimal writes no WAL for its rows.
            self.psql(f"begin; {table.make} commit;")
        self.psql(f"vacuum (freeze, analyze) public.{table.name}; checkpoint;")
        self.warm(table.name)
        size = int(self.psql(f"select pg_relation_size('public.{table.name}')"))
        self.context.blocks[table.name] = size // tools.BLOCK
        self.expected[table.name] = check.expected(table, self.psql)

    def warm(self, name):
        available = self.psql("select count(*) from pg_available_extensions where name = 'pg_prewarm'") == "1"
        if available:
            self.psql(f"""create extension if not exists pg_prewarm;
                select sum(pg_prewarm(relation)) from (select oid::regclass as relation from pg_class
                where oid = 'public.{name}'::regclass union all select reltoastrelid::regclass from pg_class
                where oid = 'public.{name}'::regclass and reltoastrelid <> 0) relations""")
        else:
            self.psql(f"select count(*) from public.{name}")

    def absent(self, tool):
        """Why a tool cannot run here, or None."""
        missing = [package for package in tool.needs if package not in self.packages]
        if missing == ["rivet-cli"]:
            return "not measured: scripts/bench --with-rivet builds it first, which takes long"
        return f"absent: {', '.join(missing)} could not be installed" if missing else None

    def once(self, tool, table, s3=None):
        """One run: measured, checked, its output removed. `s3` is where the S3 server is reached, if not directly."""
        folder = f"{self.exports}/{tool.name}-{time.monotonic_ns()}"
        os.makedirs(folder)
        for name, text in tool.files(folder).items():
            with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        context = self.context_of(tool, s3)
        # What earlier runs left to be written back must not slow this one down.
        os.sync()
        environment_of_tool = self.environment | (context.s3 if tool.s3 else {})
        server = measure.server_cpu_s(self.server)
        usage = measure.run(tool.commands(context, folder), environment_of_tool, self.errors)
        server = measure.server_cpu_s(self.server) - server
        flushing = time.monotonic()
        os.sync()
        flush = time.monotonic() - flushing
        problems = [usage.error] if usage.error else []
        size = 0
        if not problems:
            if tool.s3:
                copy = [self.context.python, f"{tools.HERE}/arrow_peer.py", "copy", self.s3["AWS_ENDPOINT"],
                        f"{self.context.bucket}/{os.path.basename(folder)}", folder]  # fmt: skip
                subprocess.run(copy, check=True, env=self.environment | self.s3, stdout=sys.stderr)
            size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
            problems = self.problems(tool, table, folder)
        shutil.rmtree(folder)
        if problems and tool.ours:
            self.wrong = True
        for problem in problems:
            say(f"{'error' if tool.ours else 'warning'}: {tool.name}: {problem}")
        return {"wall_s": round(usage.wall_s, 4), "cpu_s": round(usage.cpu_s, 4), "server_cpu_s": round(server, 2), "rss_mb": round(usage.rss_mb, 1),
                "output_mb": round(size / 1e6, 3), "flush_s": round(flush, 4), "problems": problems}  # fmt: skip

    def context_of(self, tool, s3):
        context = self.context
        if tool.far:
            context = dataclasses.replace(context, url=self.far.url, port=self.far.port)
        return dataclasses.replace(context, s3=context.s3 | {"AWS_ENDPOINT": s3}) if s3 else context

    def requests(self, chosen, known):
        """Requests by kind of one more run of every tool that writes to S3, which is not timed: a relay counts them."""
        found = {}
        for tool in (tool for tool in chosen if tool.s3 and not self.absent(tool)):
            counting = s3_requests.Counting(self.s3["AWS_ENDPOINT"])
            try:
                run = self.once(tool, known[tool.table], counting.url)
            finally:
                counts = counting.stop()
            if not run["problems"]:
                found[tool.name] = {"counts": counts, "usd": s3_requests.price(counts)}
        return found

    def problems(self, tool, table, folder):
        if tool.output is None:
            return []
        if tool.output == "dump":
            found = check.dump_rows(folder)
        else:
            found = check.written(self.context.duckdb, table, tool, folder)
        return check.differences(table, tool, self.expected[table.name], found)

    def rounds(self, chosen, known):
        """Every tool once a round, the order rotated, so that no tool always follows the same state of the machine."""
        runs = {tool.name: [] for tool in chosen}
        able = [tool for tool in chosen if not self.absent(tool)]
        for number in range(self.arguments.rounds):
            turn = number * len(able) // max(1, self.arguments.rounds)
            there = [tool for tool in able[turn:] + able[:turn] if number == 0 or not tool.slow]
            for tool in (tool for tool in there for _ in range(tool.times)):
                run = self.once(tool, known[tool.table])
                runs[tool.name].append({"round": number + 1} | run)
                say(f"round {number + 1}: {tool.name}: {run['wall_s']:.2f} s, {run['cpu_s']:.2f} s CPU, "
                    f"{run['rss_mb']:.0f} MB, {run['output_mb']:.1f} MB written")  # fmt: skip
        return runs

    def start(self):
        """Wall times of whole runs on a table of one row, of plans, and of the way to the first byte, in seconds."""
        say("measuring the start")
        export = tools.outhaul("start", "one", "", "parquet").commands
        small, large = (
            [self.context.outhaul, "plan", "--from", f"{self.context.url}?sslmode=disable", "--table", f"public.{table}"]
            for table in ("one", "lineitem")
        )
        found = {"export_of_one_row": [], "plan_of_one_row": [], "plan_of_lineitem": [], "first_byte_of_one_row": [],
                 "first_byte_of_lineitem": []}  # fmt: skip
        for number in range(RUNS_OF_START):
            folder = f"{self.exports}/start-{number}"
            for name, command in (
                ("export_of_one_row", export(self.context, folder)),
                ("plan_of_one_row", [small]),
                ("plan_of_lineitem", [large]),
            ):
                usage = measure.run(command, self.environment, self.errors)
                if usage.error:
                    sys.exit(f"error: {name}: {usage.error}")
                found[name].append(round(usage.wall_s, 4))
            for table in ("one", "lineitem"):
                first = measure.first_byte(
                    lambda port, table=table: self.behind(port, table, f"{folder}-{table}"),
                    int(self.context.port), self.environment, self.errors,
                )  # fmt: skip
                if first is None:
                    sys.exit(f"error: no CopyData for {table} within a minute")
                found[f"first_byte_of_{table.replace('one', 'one_row')}"].append(round(first, 4))
        shutil.rmtree(self.exports)
        os.makedirs(self.exports)
        return found

    def behind(self, port, table, folder):
        """The export of a table through a relay on another port."""
        url = self.context.url.replace(f":{self.context.port}/", f":{port}/")
        return [self.context.outhaul, "export", "--from", f"{url}?sslmode=disable", "--table", f"public.{table}",
                "--to", folder, "--progress", "none", "--readers", "2"]  # fmt: skip

    def memory(self, known):
        """Runs on lineitem and on five times as much, in turn."""
        self.load(known["lineitem5"])
        runs = {tool.name: [] for tool in tools.memory_tools()}
        for _ in range(RUNS_OF_MEMORY):
            for tool in tools.memory_tools():
                runs[tool.name].append(self.once(tool, known[tool.table]))
                say(f"{tool.name}: {runs[tool.name][-1]['rss_mb']:.0f} MB")
        return runs


def port_of(url):
    return url.rsplit(":", 1)[1].split("/")[0]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("root", "work", "outhaul", "url", "peers", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--rivet", default="", help="the program, where it is installed")
    parser.add_argument("--given", action="store_true", help="the program is not known to be of this commit")
    parser.add_argument("--no-requests", action="store_true", help="do not count the requests to S3")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--memory", action="store_true")
    return parser.parse_args()


def main():
    asked = arguments()
    every = tools.all_tools()
    if asked.list:
        print("\n".join(tool.name for tool in every))
        return 0
    unknown = set(asked.only or ()) - {tool.name for tool in every}
    if unknown:
        sys.exit(f"error: no tool {', '.join(sorted(unknown))}; --list prints their names")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [tool for tool in every if asked.rounds > 0 and (not asked.only or tool.name in asked.only)]
    bench = Bench(asked)
    if any(tool.far for tool in chosen):
        bench.far = Far(asked.url, FAR_ROUND_TRIP_S, FAR_BYTES_PER_S)
    try:
        return measured(bench, chosen)
    finally:
        measure.stop_all()
        if bench.far:
            bench.far.stop()


def measured(bench, chosen):
    asked = bench.arguments
    known = tables.tables(float(asked.scale)) | {"lineitem5": tables.five_times()}
    starts = not asked.only and asked.rounds > 0
    wanted = {tool.table for tool in chosen} | ({"one", "lineitem"} if starts else set())
    wanted |= {"lineitem"} if asked.memory else set()
    wanted |= {known[name].source for name in wanted} - {None}
    for name in (name for name in known if name in wanted):
        bench.load(known[name])
    found = {
        "about": environment.about(asked, bench.psql, bench.packages),
        "tables": {},
        "tools": {},
        "start_s": {},
        "memory": {},
        "requests": {},
        "far": {"round_trip_s": FAR_ROUND_TRIP_S, "bytes_per_s": FAR_BYTES_PER_S},
    }
    runs = bench.rounds(chosen, known)
    if not asked.no_requests:
        found["requests"] = bench.requests(chosen, known)
    for tool in chosen:
        found["tools"][tool.name] = {
            "title": tool.title, "table": tool.table, "s3": tool.s3, "note": tool.note, "output": tool.output,
            "absent": bench.absent(tool), "commands": described(tool, bench.context), "runs": runs[tool.name],
            "median": median(runs[tool.name]),
        }  # fmt: skip
    if starts:
        found["start_s"] = bench.start()
    if asked.memory:
        memory = bench.memory(known)
        found["memory"] = {name: {"runs": each, "median": median(each)} for name, each in memory.items()}
    found["tables"] = {
        name: {"rows": int(want["rows"]), "heap_mb": bench.context.blocks[name] * tools.BLOCK // 1_000_000}
        for name, want in bench.expected.items()
    }
    about = found["about"]
    report.write(found, asked.out or f"{asked.root}/benches/results/{about['date']}-{about['machine']}")
    return 1 if bench.wrong else 0


def median(runs):
    if not runs:
        return None
    return {name: statistics.median(run[name] for run in runs) 
            for name in ("wall_s", "cpu_s", "server_cpu_s", "rss_mb", "output_mb", "flush_s")}  # fmt: skip


def described(tool, context):
    """The commands as one would type them: no path and no port of this machine."""
    named = dataclasses.replace(
        context, outhaul="outhaul", url="$FAR_URL" if tool.far else "$URL", port="$FAR_PORT" if tool.far else "$PORT",
        duckdb="duckdb", python="python", bucket="bucket", sling="sling", sling_home="$SLING_HOME", rivet="rivet",
        extension="postgres_scanner.duckdb_extension", httpfs="httpfs.duckdb_extension",
        s3={name: f"${name}" for name in context.s3},
    )  # fmt: skip
    files = [f"echo '{text}' > $OUT/{name}" for name, text in tool.files("$OUT").items()]
    return files + [
        " ".join(f'"{word}"' if " " in word else word for word in argv).replace(tools.HERE, "benches/peers")
        for argv in tool.commands(named, "$OUT")
    ]


if __name__ == "__main__":
    sys.exit(main())
