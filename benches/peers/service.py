"""The service against the command: time to the first byte, throughput of one stream, and memory of one stream and of many.

    python3 benches/peers/service.py --binary target/release/outhaul --from URL [--rounds 3]

URL has lineitem with a leading `id`, as `scripts/tpch load 1 URL` makes it. Prints JSON; ratios are of one run.
"""

import argparse
import hashlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

KEY = "bench"
COLUMNS = "id l_orderkey l_partkey l_suppkey l_quantity l_extendedprice l_shipdate l_shipmode l_comment".split()
PAGE = 1 << 16


def settings(folder):
    columns = "\n".join(f"{name} = {{}}" for name in COLUMNS)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    text = f"""
listen = "127.0.0.1:0"
state = "state.sqlite3"
[source.bench]
from = "env:BENCH_FROM"
[[key]]
name = "bench"
sha256 = "{digest}"
tenant = "0"
tier = "enterprise"
datasets = ["lineitem"]
[dataset.lineitem]
source = "bench"
table = "public.lineitem"
tenant = "0 = {{tenant}}"
tenant_type = "int"
[dataset.lineitem.columns]
{columns}
[limits]
streams = 64
streams_per_tenant = 64
requests_per_minute = 100000
"""
    path = os.path.join(folder, "service.toml")
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    return path


class Service:
    """`outhaul serve` on a port that the system chose."""

    def __init__(self, binary, url, folder):
        command = [binary, "serve", "--config", settings(folder)]
        environment = {**os.environ, "BENCH_FROM": url}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.port = None
        for line in self.process.stderr:
            if "127.0.0.1:" in line:
                self.port = int(line.split("127.0.0.1:")[1].split()[0].rstrip("/,;."))
                break
        if self.port is None:
            sys.exit("the service did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def peak(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def stream(self, most):
        """Rows 1 to `most`: seconds to the first byte of the body, seconds in all, bytes."""
        question = {"columns": COLUMNS, "where": [{"column": "id", "op": "<=", "value": most}]}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        began = time.perf_counter()
        head = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/query/lineitem/export", json.dumps(question), head)
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"{answer.status}: {answer.read().decode()}")
        first = answer.read(1)
        took, count, lines = time.perf_counter() - began, len(first), 0
        while piece := answer.read1(PAGE):
            count += len(piece)
            lines += piece.count(b"\n")
        if lines != most:
            sys.exit(f"{lines} rows came and {most} were asked for")
        return took, time.perf_counter() - began, count


def command(binary, url, most):
    """The same rows by the command, in the same way."""
    arguments = ["export", "lineitem", "--from", url, "--to", "-", "--format", "ndjson", "--read-mode", "keyset"]
    arguments += ["--columns", ",".join(COLUMNS), "--where", f"id <= {most}", "--progress", "none"]
    began = time.perf_counter()
    with subprocess.Popen([binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        count = 0
        while piece := run.stdout.read1(PAGE):
            count += len(piece)
    if run.returncode:
        sys.exit(f"the command exited with {run.returncode}")
    return time.perf_counter() - began, count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", required=True, dest="url")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=5_000_000)
    args = parser.parse_args()
    assert urlsplit(args.url).scheme.startswith("postgres")
    with tempfile.TemporaryDirectory(prefix="outhaul-service.") as folder:
        service = Service(os.path.abspath(args.binary), args.url, folder)
        try:
            found = measure(service, args)
        finally:
            service.end()
    json.dump(found, sys.stdout, indent=2)
    print()


def measure(service, args):
    service.stream(1_000)
    found = {"first_byte_ms": [], "stream_s": [], "command_s": []}
    for _ in range(10):
        found["first_byte_ms"].append(round(service.stream(1_000)[0] * 1_000, 1))
        time.sleep(0.2)
    found["first_byte_ms_median"] = statistics.median(found["first_byte_ms"])
    service.forget_peak()
    time.sleep(1)
    found["idle_mb"] = round(service.peak(), 1)
    for rows in (200_000, args.most):
        service.forget_peak()
        service.stream(rows)
        found[f"peak_mb_above_idle_{rows}"] = round(service.peak() - found["idle_mb"], 1)
    service.forget_peak()
    took = []
    threads = [threading.Thread(target=lambda: took.append(service.stream(200_000)[1])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found["twenty_streams"] = {
        "peak_mb_above_idle": round(service.peak() - found["idle_mb"], 1),
        "least_s": round(min(took), 2),
        "most_s": round(max(took), 2),
        "ended": len(took),
    }
    for _ in range(args.rounds):
        _, seconds, count = service.stream(args.most)
        by_command, same = command(args.binary, args.url, args.most)
        if count != same:
            sys.exit(f"the service sent {count} bytes and the command {same}")
        found["stream_s"].append(round(seconds, 2))
        found["command_s"].append(round(by_command, 2))
    pairs = zip(found["command_s"], found["stream_s"])
    found["throughput_ratio"] = round(statistics.median(alone / served for alone, served in pairs), 3)
    return found


main()
