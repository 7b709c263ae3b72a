"""What `--workers external` costs: the same export by one process, and by a run and its workers on this machine, in turns.

    python3 benches/peers/workers.py --binary target/release/outhaul --from URL [--scale 1] [--rounds 5] [--counts 1,2,4]
                                     [--partitions 16] [--filled]

URL is of an empty database of a superuser without a password (`scripts/pg start 18 DIR` makes one); with --filled it has
lineitem already. psql has to be in the search path. For each count N, a plain export has N readers, and a run has N worker processes, of
which each has one connection. Whoever starts them is this program: it waits for the line `ready`, gives each worker its
share, and gives the run their lines. Prints JSON: medians of wall and CPU of all processes, and the ratios. The ratio for
one worker is to be 1.15 at most.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

BAR = 1.15
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def sql(url, text):
    subprocess.run(["psql", "-qXv", "ON_ERROR_STOP=1", url], input=text.encode(), check=True, stdout=sys.stderr)


def fill(url, scale):
    subprocess.run([f"{ROOT}/scripts/tpch", "load", scale, url], check=True, stdout=sys.stderr)
    sql(url, "vacuum (freeze, analyze) lineitem; checkpoint;")


def warm(url):
    sql(url, "select count(*) from lineitem;")


def environment():
    return {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}


def ended(process):
    """The CPU seconds of a process that must have succeeded."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{process.args[1]}: exit {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def command(args, folder, *more):
    return [args.binary, "export", "lineitem", "--from", args.url, "--to", f"{folder}/out", "--format", "parquet",
            "--partitions", str(args.partitions), "--progress", "none", "-q", *more]  # fmt: skip


def plain(args, count, folder):
    process = subprocess.Popen(
        command(args, folder, "--readers", str(count)),
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return ended(process)


def external(args, count, folder):
    # What the workers print is what the run reads; its end is theirs.
    heard, said = os.pipe()
    run = subprocess.Popen(
        command(args, folder, "--workers", "external", "--max-workers", str(count)),
        env=environment(), stdin=heard, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(heard)
    ready = json.loads(run.stdout.readline())
    numbers = [str(one["number"]) for one in ready["partitions"]]
    workers = [
        subprocess.Popen(
            [args.binary, "worker", "--from", args.url, "--destination", ready["destination"], "--run-id",
             ready["run_id"], "--epoch", str(ready["epoch"]), "--plan-sha256", ready["plan_sha256"], "--partitions",
             ",".join(numbers[index::count]), "-q"],
            env=environment(), stdin=subprocess.DEVNULL, stdout=said,
        )
        for index in range(count)
    ]  # fmt: skip
    os.close(said)
    cpu = sum(ended(worker) for worker in workers)
    run.stdout.read()
    return cpu + ended(run)


def manifest_of(folder):
    with open(f"{folder}/out/_manifest.json", encoding="utf-8") as file:
        found = json.load(file)
    return {"rows": found["totals"]["rows"], "parts": found["totals"]["parts"]}


def timed(tool, args, count):
    folder = tempfile.mkdtemp(prefix="outhaul-workers-", dir=args.work)
    try:
        # What earlier runs left to be written back must not slow this one down.
        os.sync()
        begun = time.monotonic()
        cpu = tool(args, count, folder)
        return time.monotonic() - begun, cpu, manifest_of(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", dest="url", required=True)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", default="1,2,4")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--work", help="a folder for the exports; a temporary one unless given")
    parser.add_argument("--filled", action="store_true")
    args = parser.parse_args()
    if not args.filled:
        fill(args.url, args.scale)
    warm(args.url)
    counts = [int(count) for count in args.counts.split(",")]
    tools = {"plain": plain, "external": external}
    found = {(name, count): [] for count in counts for name in tools}
    whole = None
    for _ in range(args.rounds):
        for count in counts:
            for name, tool in tools.items():
                wall, cpu, manifest = timed(tool, args, count)
                whole = whole or manifest
                if manifest != whole:
                    raise SystemExit(f"{name} with {count}: {manifest}, and another one made {whole}")
                found[name, count].append((wall, cpu))
                print(f"{name} {count}: {wall:.2f} s", file=sys.stderr)
    median = {key: [statistics.median(values) for values in zip(*runs)] for key, runs in found.items()}
    by_count = {
        str(count): {
            "plain_wall_s": round(median["plain", count][0], 2),
            "external_wall_s": round(median["external", count][0], 2),
            "ratio": round(median["external", count][0] / median["plain", count][0], 3),
            "plain_cpu_s": round(median["plain", count][1], 2),
            "external_cpu_s": round(median["external", count][1], 2),
        }
        for count in counts
    }
    print(json.dumps({
        "date": time.strftime("%Y-%m-%d"), "rounds": args.rounds, "scale": args.scale, "partitions": args.partitions,
        **whole, "counts": by_count, "bar": BAR,
        "bar_met": by_count["1"]["ratio"] <= BAR if "1" in by_count else None,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
