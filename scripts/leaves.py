"""The comparison of scripts/leaves."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time


def psql(url, sql):
    done = subprocess.run(
        ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", url],
        input=sql, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# Of one table that others inherit from. Each new partition makes the server read the bounds of all that are there: below
# one table, 20,000 take it half an hour, which says nothing of the export.
BRANCH = 200
# Between two statements of a session beside the export, in seconds.
PAUSE = 0.05


def make(url, tables):
    """Tables of ten rows below partitions of one table; a transaction for each of these, as the lock table is small."""
    psql(url, f"""create table p (id int, n int) partition by range (id);
        do $$ declare past int; begin for low in 0..{tables - 1} by {BRANCH} loop
            past := least(low + {BRANCH}, {tables});
            execute format('create table b_%s partition of p for values from (%s) to (%s) partition by list (id)',
                low, low, past);
            for i in low..past - 1 loop
                execute format('create table p_%s partition of b_%s for values in (%s)', i, low, i);
            end loop;
            execute format('insert into b_%s select i, g from generate_series(%s, %s) i, generate_series(1, 10) g',
                low, low, past - 1);
            commit;
            end loop; end $$;
        create table busy (a int primary key, b int, c int, d int); create index on busy (b);
        create index on busy (c); create index on busy (d); insert into busy values (1, 1, 1, 1)""")


def until(over, url, sql, seen, failed):
    """Runs a statement over and over in one session; what it gives is kept."""
    with subprocess.Popen(
            ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        while not over.is_set():
            session.stdin.write(sql + ";\n")
            session.stdin.flush()
            line = session.stdout.readline().strip()
            if not line:
                failed.append(sql)
                return
            seen.append(int(line))
            # Without a pause 21 sessions take the processors, and the time says how many there are.
            time.sleep(PAUSE)


def main():
    parser = argparse.ArgumentParser()
    for name in ("binary", "url", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tables", type=int, required=True)
    args = parser.parse_args()
    began = time.monotonic()
    make(args.url, args.tables)
    made = time.monotonic() - began
    fixed = ["--from", args.url, "--table", "p", "--readers", "4", "--report", "json"]
    planned = subprocess.run([args.binary, "plan", *fixed], check=True, capture_output=True, text=True)
    locks = json.loads(planned.stdout)["read"]["locks"]
    over, peak, beside, failed = threading.Event(), [], [], []
    watching = "select count(*) from pg_locks where pid in (select pid from pg_stat_activity where application_name like 'outhaul/%')"
    working = "begin; update busy set b = b + 1 where a = 2; select count(*) from busy where a = 1; commit"
    others = [threading.Thread(target=until, args=(over, args.url, watching, peak, failed))]
    others += [threading.Thread(target=until, args=(over, args.url, working, beside, failed)) for _ in range(20)]
    for other in others:
        other.start()
    to = os.path.join(args.work, "out")
    began = time.monotonic()
    done = subprocess.run([args.binary, "export", *fixed, "--to", to], capture_output=True, text=True)
    took = time.monotonic() - began
    over.set()
    for other in others:
        other.join()
    if done.returncode != 0:
        sys.exit(f"exit {done.returncode}: {done.stderr}")
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"{args.tables} tables, {report['rows']} rows, {report['parts']} parts, {took:.1f} s "
          f"(made in {made:.1f} s), {max(peak)} locks of {locks['at_most']}, {len(beside)} transactions beside")
    wrong = [what for what, good in {
        "rows": report["rows"] == 10 * args.tables,
        "parts": report["parts"] <= 16,
        "locks": max(peak) <= locks["at_most"] <= locks["lock_table"] // 4,
        "transactions beside": len(beside) > 100 and not failed,
    }.items() if not good]
    if wrong:
        sys.exit("wrong: " + ", ".join(wrong))


main()
