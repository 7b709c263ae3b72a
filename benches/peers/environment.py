"""What a result must say about where it was measured: machine, versions, settings; no path and no host name."""

import datetime
import glob
import json
import os
import re
import subprocess

SETTINGS = ("shared_buffers", "max_wal_size", "checkpoint_timeout", "autovacuum", "fsync", "full_page_writes",
            "wal_level", "max_parallel_workers_per_gather", "jit", "io_method")  # fmt: skip


def packages(peers):
    """The distributions in the peers' environment, name to version."""
    script = ("import importlib.metadata as m, json;"
              "print(json.dumps({d.metadata['Name'].replace('_', '-').lower(): d.version for d in m.distributions()}))")  # fmt: skip
    return json.loads(output(f"{peers}/bin/python", "-c", script))


def duckdb_extension(peers, name="postgres_scanner"):
    """The file of an extension as its distribution brings it, for `load`, or None."""
    pattern = f"{peers}/lib/python*/site-packages/duckdb_extension_{name}/extensions/*/*.duckdb_extension"
    return next(iter(sorted(glob.glob(pattern))), None)


def program(peers, package, name):
    """The file of a program that a distribution brings, or None. DuckDB's own, not the Python that starts it: that counts
    for nothing in what DuckDB can do."""
    return next(iter(sorted(glob.glob(f"{peers}/lib/python*/site-packages/{package}/{name}"))), None)


def rivet(path):
    """Rivet as a distribution among the others: name to version, where its program is installed."""
    said = output(path, "--version") if path else ""
    return {"rivet-cli": said.split()[1]} if said else {}


def sling_home(folder, duckdb, extensions):
    """Makes a home for Sling, in which the DuckDB that it starts finds the extensions that it would download."""
    os.makedirs(folder, exist_ok=True)
    install = "".join(f"install '{extension}';" for extension in extensions if extension)
    subprocess.run([duckdb, "-no-init", "-bail", "-c", install], check=True, env=os.environ | {"HOME": folder})
    return folder


def about(arguments, psql, found_packages):
    cpu = cpu_model()
    cores = len(os.sched_getaffinity(0))
    s3 = open(f"{arguments.root}/scripts/pins/tests.in", encoding="ascii").read()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{cores}-cores-{re.sub('[^a-z0-9]+', '-', cpu.lower()).strip('-')}",
        "cpu": cpu,
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": os.uname().release,
        "disk": output("stat", "--file-system", "--format=%T", arguments.work),
        "scale": arguments.scale,
        "rounds": arguments.rounds,
        "commit": commit(arguments.root) + (", program given" if arguments.given else ""),
        "versions": {
            "outhaul": output(arguments.outhaul, "--version"),
            "rustc": output("rustc", "--version"),
            "server": psql("select version()"),
            "psql": output("psql", "--version"),
            "pg_dump": output("pg_dump", "--version"),
            "seaweedfs": next((line for line in s3.split() if line.startswith("seaweedfs")), ""),
            "peers": {name: version for name, version in sorted(found_packages.items())
                      if name not in ("pip", "setuptools", "typing-extensions")},
        },
        "settings": {name: psql(f"select current_setting('{name}', true)") for name in SETTINGS},
    }  # fmt: skip


def commit(root):
    changed = output("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    return (output("git", "-C", root, "rev-parse", "HEAD") or "unknown") + (" and changes" if changed else "")


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")


def output(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
