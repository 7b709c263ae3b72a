"""What a row costs Outhaul with one reader and with sixteen, where the server is not the bottleneck: a stub answers each COPY
with what the server sent for it once, as fast as the socket takes it. All else passes through to the server.
`scripts/bench --readers` starts all that it needs.

    python3 benches/peers/readers.py --binary target/release/outhaul --url URL [--table TABLE | --scale 0.5] [--rounds 5]
        [--format parquet] [--out FILE]

URL is of a superuser without a password; lineitem of the scale is made there, unless a table is named. Prints JSON; ratios are
of one run. Where the machine has fewer cores than readers, only the CPU for a row tells how more cores would do: whatever
readers had to do for each other would add to it.
"""

import argparse
import json
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import measure

READERS = [1, 2, 4, 8, 16]
PARTITIONS = 16
# CPU for a row against that of one reader, and the share of linear throughput where there are as many cores.
CPU_BAR = 1.05
LINEAR_BAR = 0.8
PIECE = 1 << 20
TPCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/tpch")


class Stub(measure.Front):
    """A server that answers COPYs it has seen from memory, and passes all else on to another."""

    def __init__(self, url):
        self.recorded = {}
        self.replayed = 0
        place = urlsplit(url)
        super().__init__((place.hostname, place.port))
        user = f"{place.username}@" if place.username else ""
        self.url = f"{place.scheme}://{user}127.0.0.1:{self.port}{place.path}?sslmode=disable"

    def serve(self, client, server):
        try:
            with client, server:
                Session(self, client, server).serve()
        except OSError:
            pass  # Either end has gone, and takes the other with it.


class Session:
    """One connection of a client."""

    def __init__(self, stub, client, server):
        self.stub, self.client, self.server = stub, client, server
        self.started = False
        self.asked = bytearray()
        # The statement is the same for all partitions; which one is meant was said before.
        self.partition = b""

    def serve(self):
        while True:
            ready, _, _ = select.select([self.client, self.server], [], [])
            if self.server in ready:
                data = self.server.recv(1 << 16)
                if not data:
                    return
                self.client.sendall(data)
            if self.client in ready:
                data = self.client.recv(1 << 16)
                if not data:
                    return
                self.asked += data
                self.answer()

    def answer(self):
        """Passes on whole messages. A Parse that begins a COPY waits for the rest of its request, up to Sync."""
        at = 0
        copy = None
        while (message := self.message(at)) is not None:
            kind, end = message
            if copy is None and kind == b"P" and b"\0COPY " in self.asked[at : at + 64]:
                self.server.sendall(self.asked[:at])
                copy = at
            elif b"'outhaul." in self.asked[at:end]:
                self.partition = bytes(self.asked[at:end])
            at = end
            if copy is not None and kind == b"S":
                request = bytes(self.asked[copy:at])
                del self.asked[:at]
                self.copy(request)
                at, copy = 0, None
        kept = at if copy is None else copy
        if copy is None and kept:
            self.server.sendall(self.asked[:kept])
        del self.asked[:kept]

    def message(self, at):
        """The kind and the end of the message at a place, if all of it has come. The first one has no kind."""
        head = 1 if self.started else 0
        if len(self.asked) < at + head + 4:
            return None
        end = at + head + int.from_bytes(self.asked[at + head : at + head + 4], "big")
        if len(self.asked) < end:
            return None
        self.started = True
        return bytes(self.asked[at : at + head]), end

    def copy(self, request):
        key = (self.partition, request)
        known = self.stub.recorded.get(key)
        if known is None:
            self.stub.recorded[key] = self.record(request)
            return
        self.stub.replayed += 1
        view = memoryview(known)
        for at in range(0, len(view), PIECE):
            self.client.sendall(view[at : at + PIECE])

    def record(self, request):
        """All that the server says, to its ReadyForQuery."""
        self.server.sendall(request)
        answer, kinds, ready = bytearray(), measure.messages(), False
        # Six bytes, of which a piece may lack the last.
        while not (ready and answer[-6:-5] == b"Z"):
            data = self.server.recv(PIECE)
            if not data:
                raise OSError("the server has gone")
            self.client.sendall(data)
            answer += data
            ready = ready or b"Z" in kinds(data)
        return bytes(answer)


def export(binary, url, table, form, readers):
    folder = tempfile.mkdtemp(prefix="outhaul-readers-")
    try:
        argv = [binary, "export", "--from", url, "--table", table, "--to", f"{folder}/out", "--format", form]
        argv += ["--readers", str(readers), "--partitions", str(PARTITIONS), "--progress", "none"]
        env = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
        with tempfile.NamedTemporaryFile() as errors:
            usage = measure.run([argv], env, errors.name)
        if usage.error:
            raise SystemExit(usage.error)
        with open(f"{folder}/out/_manifest.json", encoding="utf-8") as manifest:
            return usage, json.load(manifest)["totals"]["rows"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows_of(url, table):
    asked = ["psql", "-qXAtc", f"select count(*) from {table}", url]
    return int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


def measured(args, stub):
    """The usages of each number of readers, in turns; the first export is recorded and does not count."""
    expected = rows_of(args.url, args.table)
    found = {readers: [] for readers in READERS}
    for turn in range(args.rounds + 1):
        for readers in READERS if turn else READERS[1:2]:
            before = stub.replayed
            usage, rows = export(args.binary, stub.url, args.table, args.format, readers)
            if rows != expected or turn and stub.replayed == before:
                raise SystemExit(f"{readers} readers: {rows} of {expected} rows, {stub.replayed - before} COPYs replayed")
            if turn:
                found[readers].append(usage)
                print(f"{readers} readers: {usage.wall_s:.2f} s, CPU {usage.cpu_s:.2f} s", file=sys.stderr)
    return found, expected


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--table")
    parser.add_argument("--scale", default="0.5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.table is None:
        subprocess.run([TPCH, "load", args.scale, args.url], check=True, stdout=sys.stderr)
        args.table = "public.lineitem"
    stub = Stub(args.url)
    try:
        found, rows = measured(args, stub)
    finally:
        stub.close()
    cores = os.cpu_count()
    one = statistics.median(usage.cpu_s for usage in found[1]), statistics.median(usage.wall_s for usage in found[1])
    table = []
    for readers, usages in found.items():
        cpu, wall = (statistics.median(values) for values in zip(*((usage.cpu_s, usage.wall_s) for usage in usages)))
        line = {
            "readers": readers,
            "wall_s": round(wall, 2),
            "cpu_ns_a_row": round(cpu / rows * 1e9, 1),
            "cpu_against_one_reader": round(cpu / one[0], 3),
            "rows_a_second": round(rows / wall),
            "peak_mb": round(max(usage.rss_mb for usage in usages), 1),
        }
        if 1 < readers <= cores:
            line["share_of_linear"] = round(one[1] / wall / readers, 2)
        table.append(line)
    worst = max(line["cpu_against_one_reader"] for line in table)
    shares = [line["share_of_linear"] for line in table if line["readers"] <= 8 and "share_of_linear" in line]
    bars = {"cpu": {"measured": worst, "bar": CPU_BAR, "met": worst <= CPU_BAR}}
    if shares:
        bars["linear"] = {"measured": min(shares), "bar": LINEAR_BAR, "met": min(shares) >= LINEAR_BAR}
    measure.tell({
        "date": time.strftime("%Y-%m-%d"), "cores": cores, "format": args.format, "rows": rows, "rounds": args.rounds,
        "partitions": PARTITIONS, "readers": table, "bars": bars,
    }, args.out)  # fmt: skip


if __name__ == "__main__":
    main()
