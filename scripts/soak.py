"""The loop of scripts/soak: kill, go on, compare."""

import argparse
import glob
import json
import os
import random
import subprocess
import sys
import time

import duckdb

AGGREGATES = """count(*), sum(id), sum(l_orderkey * l_linenumber), sum(l_quantity), sum(l_extendedprice),
    sum(length(l_comment)), min(l_shipdate)::text, max(l_receiptdate)::text, sum(l_partkey::numeric(38) * l_suppkey)"""

# Beyond the keys of lineitem at any scale that fits here.
LATER = 10**12


def psql(url, sql):
    done = subprocess.run(
        ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--dbname", url, "--command", sql],
        check=True, capture_output=True, text=True)
    return done.stdout.strip()


def disturb(url):
    """Rows that come after the snapshot, and rows that are changed."""
    psql(url, f"""insert into lineitem select {LATER} + (select count(*) from lineitem), l_orderkey, l_partkey, l_suppkey,
        l_linenumber, l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate,
        l_receiptdate, l_shipinstruct, l_shipmode, l_comment from lineitem where id = 1;
        update lineitem set l_quantity = l_quantity + 1 where id = 7""")


def mend(url):
    psql(url, f"""delete from lineitem where id >= {LATER};
        update lineitem set l_quantity = 1 where id = 7""")


def receipts(dest):
    """The parts that have a receipt."""
    paths = set()
    for file in glob.glob(f"{dest}/_outhaul/*/receipts/*.json"):
        with open(file, encoding="utf-8") as opened:
            paths.update(part["object"]["path"] for part in json.load(opened)["parts"])
    return paths


def compare(dest, expected, receipted):
    with open(f"{dest}/_manifest.json", encoding="utf-8") as opened:
        manifest = json.load(opened)
    named = {part["path"] for part in manifest["parts"]}
    there = {os.path.relpath(file, dest) for file in glob.glob(f"{dest}/data/**", recursive=True) if os.path.isfile(file)}
    assert there == named, f"at the destination and not in the manifest, or the other way round: {there ^ named}"
    left = os.listdir(f"{dest}/_outhaul") if os.path.isdir(f"{dest}/_outhaul") else []
    assert not left, f"left in _outhaul: {left}"
    assert os.path.exists(f"{dest}/_SUCCESS"), "no _SUCCESS"
    assert receipted <= named, f"read twice although it had a receipt: {receipted - named}"
    row = duckdb.sql(f"select {AGGREGATES} from read_parquet('{dest}/data/*.parquet')").fetchall()[0]
    # numeric(15,2) and its sums print alike; the rest are whole numbers and text.
    found = "|".join(str(value) for value in row)
    assert found == expected, f"rows differ: {found} where the source has {expected}"


def main():
    parser = argparse.ArgumentParser()
    for name in ("--binary", "--url", "--work"):
        parser.add_argument(name, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--again", choices=("resume", "export"), default="resume")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    rng = random.Random(given.seed)
    dest = f"{given.work}/dest"
    psql(given.url, "alter table lineitem set (autovacuum_enabled = off)")
    mend(given.url)
    expected = psql(given.url, f"select {AGGREGATES} from lineitem")
    export = [given.binary, "export", "--from", given.url, "--table", "lineitem", "--to", dest, "--readers", "2",
              "--partitions", str(given.partitions), "--keep-snapshot", "10m", "--on-existing", "replace", "--progress", "none"]
    resume = [given.binary, "resume", dest, "--from", given.url, "--progress", "none"]

    # How long one takes undisturbed: kills come within that.
    begun = time.monotonic()
    subprocess.run(export, check=True, capture_output=True)
    whole = time.monotonic() - begun
    compare(dest, expected, set())
    kills = through = 0
    running, receipted = None, set()
    while kills < given.kills or running is not None:
        last = kills >= given.kills
        going_on = running is not None
        command = resume if going_on and given.again == "resume" else export
        if not going_on:
            mend(given.url)
            receipted = set()
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if not last:
            time.sleep(rng.uniform(0, whole * 1.05))
            running.kill()
        _, said = running.communicate()
        code = running.returncode
        if code == -9:
            kills += 1
            if given.again == "resume":
                receipted |= receipts(dest)
                disturb(given.url)
            print(f"kill {kills}: {len(receipts(dest))} of {given.partitions} partitions have their receipt", flush=True)
        elif code == 0:
            compare(dest, expected, receipted if given.again == "resume" else set())
            through += 1
            running = None
        elif code in (2, 12) and command is resume and not receipts(dest):
            # Killed before anybody but the run itself held the snapshot: then it had read nothing.
            running = None
        else:
            sys.exit(f"exit {code} after {kills} kills, seed {given.seed}: {said}")
    print(f"{kills} kills, {through} whole exports, each equal to the source, seed {given.seed}")


main()
