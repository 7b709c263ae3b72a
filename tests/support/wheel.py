"""What the modules of the wheel do, for tests/it/python.rs: wheel.py SITE SOURCE FOLDER prints an object of JSON."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

site, source, folder = sys.argv[1:]
sys.path.insert(0, site)
import outhaul
import outhaul.errors
import outhaul.spark

found = {}


def place(name):
    return os.path.join(folder, name)


def published(name):
    return os.path.exists(os.path.join(place(name), "_manifest.json"))


def error_of(run):
    try:
        return {"done": run()}
    except Exception as error:
        kept = pickle.loads(pickle.dumps(error))
        assert (type(kept), str(kept)) == (type(error), str(error))
        return {
            "class": type(error).__name__,
            "code": getattr(error, "code", None),
            "retryable": getattr(error, "retryable", None),
            "text": str(error),
        }


def processes(word):
    """The command lines of the processes that have a word among their arguments."""
    lines = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().decode("utf-8", "replace")
        except OSError:
            continue
        if word in line and int(pid) != os.getpid():
            lines.append(line)
    return lines


# Where it is: what the wheel installed, and nothing else where another one is named.
found["program"] = os.path.relpath(outhaul.find_program(), site)
found["version"] = outhaul.version()
os.environ["OUTHAUL_BIN"] = place("nothing")
found["no_program"] = error_of(outhaul.find_program)
del os.environ["OUTHAUL_BIN"]
found["codes"] = sorted(outhaul.errors.CLASSES)

# A whole export, by a list of options, switches and numbers.
seen = []
report = outhaul.export(
    "t", to=place("whole"), source=source, format="csv", csv_header="off", readers=2, partitions=3, sha256=True,
    allow_truncated=False, rename=["v=w"], where=None, on_event=lambda event: seen.append(event["event"]),
)  # fmt: skip
found["whole"] = {
    "status": report.status, "rows": report.rows, "parts": report.parts, "events": sorted(set(seen)),
    "first": seen[0], "last": seen[-1], "manifest": report.manifest, "there": published("whole"),
}  # fmt: skip

# What an export would do.
planned = outhaul.export("t", to=place("planned"), source=source, dry_run=True)
found["planned"] = {
    "status": planned.status, "destination": planned.destination, "run_id": planned.run_id, "there": published("planned"),
}  # fmt: skip
outhaul.export("t", to=place("not_planned"), source=source, dry_run=False)

# Event by event; the command lines meanwhile.
lines = []
for event in outhaul.events(to=place("query"), source=source, query="select id from t", key="id"):
    lines.extend(processes(place("query")))
found["query"] = {"there": published("query"), "lines": len(lines), "secret": any(source in line for line in lines)}

# Every way to fail, by its class.
capped = {"table": "t", "source": source, "max_rows": 7}
found["errors"] = {
    "taken": error_of(lambda: outhaul.export("t", to=place("whole"), source=source)),
    "missing": error_of(lambda: outhaul.export("nothing", to=place("e1"), source=source)),
    "data": error_of(lambda: outhaul.export(query="select 'NaN'::numeric(9,2) as n", to=place("e2"), source=source)),
    "rejected": error_of(lambda: outhaul.export(query="select 1/0 as n", to=place("e3"), source=source)),
    "option": error_of(lambda: outhaul.export("t", to=place("e4"), source=source, no_such_option=1)),
    "switch": error_of(lambda: outhaul.export("t", to=place("e5"), source=source, format="csv", csv_header=True)),
    "source": error_of(lambda: outhaul.export("t", to=place("e6"), source="postgresql://nobody@127.0.0.1:1/none")),
    "ours": error_of(lambda: outhaul.export("t", to=place("e7"), source=source, report="text")),
    "pipe": error_of(lambda: outhaul.export("t", to="-", source=source)),
    "truncated": error_of(lambda: outhaul.export(to=place("cut"), **capped)),
    "allowed": error_of(lambda: outhaul.export(to=place("cut2"), allow_truncated=True, **capped).status),
}
found["cut_is_there"] = published("cut")

# Stopped: by closing, by an exception of the caller's, by Ctrl-C. Slow enough to be under way.
slow = {"table": "t", "source": source, "max_bytes_per_second": "64KiB", "partitions": 4}


def stop_by_closing():
    for event in outhaul.events(to=place("closed"), **slow):
        if event["event"] == "progress":
            break


def fail(event):
    if event["event"] == "progress":
        raise KeyError("of the caller")


def interrupt(event):
    if event["event"] == "progress":
        signal.raise_signal(signal.SIGINT)


begun = time.monotonic()
stop_by_closing()
found["failed_caller"] = error_of(lambda: outhaul.export(to=place("failed"), on_event=fail, **slow))["class"]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    outhaul.export(to=place("interrupted"), on_event=interrupt, **slow)
except KeyboardInterrupt:
    found["interrupted"] = True
found["stopped"] = {
    "seconds": time.monotonic() - begun,
    "published": [name for name in ("closed", "failed", "interrupted") if published(name)],
    "running": sum(len(processes(place(name))) for name in ("closed", "failed", "interrupted")),
}

# A killed program: it said nothing, and another try may do better.
def kill(event):
    if event["event"] == "progress":
        (line,) = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if mine(pid)]
        os.kill(int(line), signal.SIGKILL)


def mine(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return place("killed").encode() in file.read() and int(pid) != os.getpid()
    except OSError:
        return False


found["killed"] = error_of(lambda: outhaul.export(to=place("killed"), on_event=kill, **slow))

# A task of Spark without Spark: a worker of a real run, whose standard input ends with the task.
run = subprocess.Popen(
    [outhaul.find_program(), "export", "t", "--to", place("task"), "--partitions", "3", "--workers", "external", "-q"],
    env={**os.environ, "OUTHAUL_FROM": source}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)  # fmt: skip
ready = json.loads(run.stdout.readline())
task = outhaul.spark.Task(
    destination=ready["destination"], run_id=ready["run_id"], epoch=ready["epoch"], plan_sha256=ready["plan_sha256"],
    version=ready["outhaul_version"], shares=tuple(str(one["number"]) for one in ready["partitions"]),
    options={"source": source},
)  # fmt: skip
task = pickle.loads(pickle.dumps(task))


def lines_of(**changed):
    import dataclasses

    return [json.loads(line) for line in outhaul.spark.work(dataclasses.replace(task, **changed), task.shares[0])]


found["task"] = {
    "other_version": lines_of(version="0.0.1"),
    "other_plan": lines_of(plan_sha256="0" * 64),
    "other_epoch": lines_of(epoch=7),
    "no_source": error_of(lambda: lines_of(options={"source": "postgresql://nobody@127.0.0.1:1/none"})),
    "receipts": [],
}
for share in task.shares:
    found["task"]["receipts"] += [json.loads(line)["type"] for line in outhaul.spark.work(task, share)]
found["task"]["again"] = lines_of()
run.stdin.close()
found["task"]["code"] = run.wait()
found["task"]["there"] = published("task")

# What is there already needs no cluster.
with outhaul.spark.export(None, "t", to=place("whole"), source=source, on_existing="skip") as there:
    pass
found["there"] = {"run_id": there.run_id, "partitions": there.partitions, "whole": report.run_id}

# A job.
with open(place("job.toml"), "w", encoding="utf-8") as file:
    file.write(f"""[defaults]
to = "{place('job')}/{{table}}"
format = "csv"
[[export]]
table = "public.t"
partitions = 2
""")
job = outhaul.run(place("job.toml"), source=source, run_id="night")
found["job"] = {"rows": job.rows, "exports": [one.rows for one in job.exports], "run_id": job.run_id}
found["no_job"] = error_of(lambda: outhaul.run(place("none.toml"), source=source))

# What may not travel to the executors.
found["passwords"] = {
    text: outhaul.spark._has_password(text)
    for text in [
        "env:SHOP_URL", "postgresql://me@db/shop", "postgresql://me:secret@db/shop", "postgresql://db/shop?password=s",
        "host=db user=me", "host=db password=secret", "clickhouse://me:secret@db:8123/shop",
        "postgresql://me:secret#1@db/shop", "postgresql://me:secret?1@db/shop", "postgresql://me:secret/1@db/shop",
        "postgresql://me:p@secret@db/shop", "postgresql://me@[::1]:5432/shop",
    ]
}  # fmt: skip
found["refused"] = error_of(
    lambda: outhaul.spark.export(None, "t", to=place("never"), source="postgresql://me:secret@db/shop")
)

print(json.dumps(found, default=str))
