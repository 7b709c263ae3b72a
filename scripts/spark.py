"""The cases of scripts/test-spark: a standalone cluster whose parts are killed while its executors read for an export."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import outhaul
import outhaul.spark
import pyarrow.parquet
import pyspark
from pyspark.sql import SparkSession

ROWS = 6000
PARTITIONS = 6
# On a machine that is slower or busy each wait may take so many times as long.
SLOWER = float(os.environ.get("OUTHAUL_TEST_SLOWER", "1"))
GONE_SECONDS = 10
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
SPARK_HOME = os.path.dirname(pyspark.__file__)


def say(text):
    print(text, file=sys.stderr, flush=True)


def until(what, check, seconds=60.0):
    """The first answer that is something."""
    end = time.monotonic() + seconds * SLOWER
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def command_lines():
    """Of all processes that live, by id."""
    lines = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        lines[int(pid)] = [word.decode("utf-8", "replace") for word in words]
    return lines


class World:
    """Servers, paths, and what can be asked of them."""

    def __init__(self, args):
        self.url, self.log, self.work = args.url, Path(args.log), Path(args.work)
        self.tests_python = args.tests_python
        self.gates = self.work / "gates"
        self.gates.mkdir(mode=0o755)
        self.stop_file = self.work / "receipted"
        self.bucket = os.environ["OUTHAUL_TEST_S3_BUCKET"]
        os.environ.update({
            "SPARK_CASES": str(self.work),
            "AWS_ENDPOINT": os.environ["OUTHAUL_TEST_S3_ENDPOINT"], "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": os.environ["OUTHAUL_TEST_S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": os.environ["OUTHAUL_TEST_S3_SECRET_KEY"],
            # The executors' own: their workers find the database by it.
            "DATABASE_URL": self.url,
            # The executors run this Python, in which the wheel is.
            "PYSPARK_PYTHON": sys.executable,
            # What would be seconds in life.
            "OUTHAUL_TEST_LIMITS": "look=0.2,wait=0.2,fence=0.5",
        })  # fmt: skip
        self.nth = 0

    def sql(self, text):
        done = subprocess.run(
            ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url], input=text, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def fill(self):
        # A row of every partition waits at a gate while that is closed; nothing else says how long a read takes.
        self.sql(f"""
            create function gate(id int) returns int immutable parallel safe language plpgsql as $$
            begin
                while (id % 100 = 0 and (pg_stat_file('{self.gates}/all', true)).size is not null)
                    or (id = 1 and (pg_stat_file('{self.gates}/one', true)).size is not null)
                loop perform pg_sleep(0.05); end loop;
                return id;
            end $$;
            create table t as select i as id, repeat(md5(i::text), 4) as v from generate_series(1, {ROWS}) i;
            alter table t add primary key (id);
            create table odd as select i as id, (case when i = {ROWS} then 'NaN' else '1' end)::numeric(9,2) as n
                from generate_series(1, {ROWS}) i;
            vacuum analyze;""")

    def close(self, gate="all"):
        (self.gates / gate).touch()

    def open(self):
        for gate in self.gates.iterdir():
            gate.unlink()

    def local(self):
        self.nth += 1
        return str(self.work / f"export-{self.nth}")

    def s3(self):
        self.nth += 1
        return f"s3://{self.bucket}/export-{self.nth}"

    def uploads(self, place):
        if not place.startswith("s3:"):
            return []
        code = """
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"])
found = s3.list_multipart_uploads(Bucket=os.environ["OUTHAUL_TEST_S3_BUCKET"])
print(*(one["Key"] for one in found.get("Uploads", []) if one["Key"].startswith(sys.argv[1])))
"""
        prefix = place.split("/", 3)[3]
        asked = subprocess.run([self.tests_python, "-c", code, prefix], capture_output=True, text=True, check=True)
        return asked.stdout.split()

    def readers(self):
        """The backends that read."""
        return int(self.sql("select count(*) from pg_stat_activity where application_name like 'outhaul/%/reader%'"
                            " and state = 'active' and query like 'COPY%'"))  # fmt: skip

    def backends(self):
        return int(self.sql("select count(*) from pg_stat_activity where application_name like 'outhaul/%'"))

    def reads(self):
        """So many times a partition was read, in all."""
        return len(re.findall(r"outhaul/\w+/reader.*: COPY \(", self.log.read_text(errors="replace")))

    def worker_processes(self):
        """Those of these cases: others on this machine may be of anybody."""
        found = [pid for pid, words in command_lines().items() if words[1:2] == ["worker"] and "outhaul" in words[0]]
        return [pid for pid in found if self.is_ours(pid)]

    def is_ours(self, pid):
        try:
            return f"SPARK_CASES={self.work}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def nothing_left(self, place):
        until("no worker process", lambda: not self.worker_processes(), GONE_SECONDS)
        until("no backend", lambda: self.backends() == 0, GONE_SECONDS)
        left = self.uploads(place)
        assert not left, f"uploads are left: {left}"

    def read(self, place):
        """The rows at a destination, in their order."""
        if place.startswith("s3:"):
            copy = self.local()
            code = """
import boto3, os, sys
s3, prefix, folder = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT"]), sys.argv[1], sys.argv[2]
bucket = os.environ["OUTHAUL_TEST_S3_BUCKET"]
os.makedirs(folder + "/data")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/data/"):
    for one in page.get("Contents", []):
        s3.download_file(bucket, one["Key"], folder + "/data/" + one["Key"].rsplit("/", 1)[1])
"""
            subprocess.run([self.tests_python, "-c", code, place.split("/", 3)[3], copy], check=True)
            place = copy
        return pyarrow.parquet.read_table(f"{place}/data").sort_by("id")


class Cluster:
    """A master and workers of Spark, as JVMs of their own."""

    def __init__(self, world):
        self.world = world
        self.port = free_port()
        self.processes = {}
        self.start("master", "127.0.0.1", ["Master", "--host", "127.0.0.1", "--port", str(self.port)])
        until("the master", lambda: "New state: ALIVE" in self.text("master"), 90)
        self.url = f"spark://127.0.0.1:{self.port}"
        self.ports = {}
        for host in HOSTS:
            self.start_worker(host)
        until("the workers", lambda: self.text("master").count("Registering worker") >= len(HOSTS), 120)

    def start(self, name, host, words):
        env = {**os.environ, "SPARK_HOME": SPARK_HOME, "SPARK_LOCAL_IP": host, "SPARK_DAEMON_MEMORY": "256m",
               "SPARK_WORKER_OPTS": "-Dspark.worker.cleanup.enabled=false"}  # fmt: skip
        kind, *rest = words
        argv = [f"{SPARK_HOME}/bin/spark-class", f"org.apache.spark.deploy.{kind.lower()}.{kind}", "--webui-port", "0", *rest]
        with open(self.world.work / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_worker(self, host):
        self.ports[host] = free_port()
        self.start(host, host, ["Worker", "--host", host, "--port", str(self.ports[host]), "--cores", "1", "--memory",
                                "640m", "--work-dir", str(self.world.work / f"at-{host}"), self.url])  # fmt: skip

    def text(self, name):
        return (self.world.work / f"{name}.log").read_text(errors="replace")

    def executors(self):
        """The hosts of the executors that live, by their process."""
        found = {}
        for pid, words in command_lines().items():
            if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in words:
                at = words[words.index("--worker-url") + 1]
                for host, port in self.ports.items():
                    if at.endswith(f"{host}:{port}"):
                        found[pid] = host
        return found

    def session(self, name, conf=(), environment=()):
        builder = SparkSession.builder.master(self.url).appName(name)
        settings = {
            "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.executor.memory": "512m",
            "spark.executor.cores": "1", "spark.driver.memory": "512m", "spark.ui.enabled": "false",
            "spark.executorEnv.OUTHAUL_TEST_STOP": f"receipted={self.world.stop_file}",
            **{f"spark.executorEnv.{name}": value for name, value in environment}, **dict(conf),
        }  # fmt: skip
        for key, value in settings.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        until("executors", lambda: len(self.executors()) >= len(HOSTS), 60)
        return spark

    def stop(self):
        for process in reversed(list(self.processes.values())):
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Those whose daemon was killed.
        for pid in self.executors():
            os.kill(pid, signal.SIGKILL)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Passing:
    """Lets each worker go on at the failpoint behind its receipt, unless it is held there."""

    def __init__(self, file):
        self.file, self.held, self.ended = file, False, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended:
            if not self.held:
                self.file.unlink(missing_ok=True)
            time.sleep(0.02)


class Cases:
    def __init__(self, world, cluster, passing):
        self.world, self.cluster, self.passing = world, cluster, passing
        self.options = {"column": ["g=public.gate(id)"], "partitions": PARTITIONS}
        alone = world.local()
        outhaul.export("t", to=alone, source=world.url, **self.options)
        self.alone = world.read(alone)
        self.spark = None

    def export(self, place, table="t", **more):
        options = {**self.options, "max_workers": 3, **more}
        return outhaul.spark.export(self.spark, table, to=place, source=self.world.url, **options)

    def same(self, place, run):
        assert run.report.rows == ROWS and run.report.status == "complete", run.report
        assert self.world.read(place).equals(self.alone), "other rows than those of one process"
        self.world.nothing_left(place)

    def reading(self, count):
        until(f"{count} readers", lambda: self.world.readers() >= count)

    def completed(self):
        """So many tasks of the job are done."""
        tracker = self.spark.sparkContext.statusTracker()
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return max((one.numCompletedTasks for one in stages if one), default=0)

    def w0_one_two_and_three_workers(self):
        for workers, place in [(1, self.world.local()), (2, self.world.s3()), (3, self.world.local())]:
            before = self.world.reads()
            with self.export(place, max_workers=workers) as run:
                assert [one.number for one in run.partitions] and len(run.partitions) == PARTITIONS
                weights = [one.weight for one in run.partitions]
                assert weights == sorted(weights, reverse=True), weights
            self.same(place, run)
            assert self.world.reads() - before == PARTITIONS, "a partition was read twice"

    def w1_executor_killed_mid_part(self):
        place = self.world.s3()
        self.world.close()
        with self.export(place) as run:
            self.reading(3)
            executors = self.cluster.executors()
            victim = next(iter(executors))
            workers = self.world.worker_processes()
            os.kill(victim, signal.SIGKILL)
            until("its worker is gone", lambda: len(set(workers) - set(self.world.worker_processes())) >= 1, GONE_SECONDS)
            until("another executor", lambda: set(self.cluster.executors()) - set(executors))
            self.world.open()
        self.same(place, run)

    def w1b_worker_daemon_killed(self):
        place = self.world.local()
        self.world.close()
        with self.export(place) as run:
            self.reading(3)
            daemon = self.cluster.processes[HOSTS[2]]
            daemon.kill()
            daemon.wait()
            until("its executor is gone", lambda: HOSTS[2] not in self.cluster.executors().values(), 30)
            self.world.open()
        self.same(place, run)
        self.cluster.start_worker(HOSTS[2])
        until("three executors", lambda: len(self.cluster.executors()) == 3)

    def w2_killed_behind_the_receipt(self):
        place = self.world.local()
        self.passing.held = True
        with self.export(place, max_workers=1) as run:
            until("a receipt", self.world.stop_file.exists)
            there = [int(file.name.split("-")[0]) for file in Path(place).glob("_outhaul/*/receipts/*.json")]
            # All at once, as a machine dies: a worker that is told to stop in this moment takes its part back.
            workers = self.world.worker_processes()
            assert workers, "no worker reads"
            for pid in [*workers, *self.cluster.executors()]:
                os.kill(pid, signal.SIGKILL)
            until("no worker", lambda: not self.world.worker_processes(), GONE_SECONDS)
            self.passing.held = False
        self.same(place, run)
        assert there and sorted(one["partition"] for one in run.receipts) == list(range(PARTITIONS)), run.receipts
        again = [one for one in run.receipts if one["partition"] in there and not one["already"]]
        assert not again, f"what had its receipt was read again: {again}"

    def w3_all_executors_lost(self):
        place = self.world.local()
        self.world.close()
        with self.export(place) as run:
            self.reading(3)
            executors = self.cluster.executors()
            for pid in executors:
                os.kill(pid, signal.SIGKILL)
            until("one is back", lambda: set(self.cluster.executors()) - set(executors))
            self.world.open()
        self.same(place, run)

    def w5_what_nobody_can_read_ends_it(self):
        place = self.world.local()
        before = self.world.reads()
        try:
            with self.export(place, "odd", column=None):
                pass
        except outhaul.DataError as error:
            assert error.code == 14 and not error.retryable, error
            assert "row" in str(error) and "NaN" in str(error), error
        else:
            raise AssertionError("NaN was written")
        assert self.world.reads() - before <= PARTITIONS, "it was tried again"
        assert not os.path.exists(place) or not os.listdir(place), os.listdir(place)
        self.world.nothing_left(place)

    def w5_what_may_pass_is_tried_again(self):
        place = self.world.local()
        port, refused = lossy(self.world.url, 2)
        tracker = self.spark.sparkContext.statusTracker()
        tries = {"failed": 0}

        def watch():
            while tries is not None and not tries.get("ended"):
                for stage in tracker.getActiveStageIds():
                    info = tracker.getStageInfo(stage)
                    if info:
                        tries["failed"] = max(tries["failed"], info.numFailedTasks)
                time.sleep(0.05)

        threading.Thread(target=watch, daemon=True).start()
        through = re.sub(r":\d+/", f":{port}/", self.world.url)
        with self.export(place, worker_options={"source": through}) as run:
            pass
        tries["ended"] = True
        self.same(place, run)
        assert refused() == 2 and tries["failed"] >= 1, (refused(), tries)

    def w5_too_many_tries_end_it(self):
        place = self.world.local()
        with_no_server = {"source": "postgresql://nobody@127.0.0.1:1/none"}
        try:
            with self.export(place, worker_options=with_no_server, keep_snapshot="60s"):
                pass
        except outhaul.SourceUnavailable as error:
            assert error.code == 11 and "connection refused" in str(error), error
            assert error.__cause__ is not None
        else:
            raise AssertionError("nobody could connect")
        # What is there stays, and another job goes on with it.
        with outhaul.spark.resume(self.spark, place, source=self.world.url, max_workers=3) as run:
            assert len(run.partitions) == PARTITIONS and run.epoch == 2
        self.same(place, run)

    def w10_cancelled(self):
        place = self.world.s3()
        self.world.close()
        try:
            with self.export(place) as run:
                self.reading(3)
                begun = time.monotonic()
                run.cancel()
        except outhaul.Stopped as error:
            assert error.code == 143, error
        else:
            raise AssertionError("it was cancelled")
        self.world.nothing_left(place)
        assert time.monotonic() - begun < GONE_SECONDS * SLOWER, time.monotonic() - begun
        # By an exception in the body, which comes out as it is.
        try:
            with self.export(place):
                self.reading(3)
                raise KeyError("of the caller")
        except KeyError:
            pass
        self.world.nothing_left(place)
        self.world.open()
        # And the destination is free.
        with self.export(place) as run:
            pass
        self.same(place, run)

    def w10_cancelled_by_spark(self):
        place = self.world.local()
        self.world.close()
        try:
            with self.export(place, keep_snapshot="60s") as run:
                self.reading(3)
                self.spark.sparkContext.cancelAllJobs()
        except outhaul.SourceUnavailable as error:
            assert "cancelled" in str(error), error
        else:
            raise AssertionError("it was cancelled")
        until("no worker process", lambda: not self.world.worker_processes(), GONE_SECONDS)
        until("no reader", lambda: self.world.readers() == 0, GONE_SECONDS)
        self.world.open()
        self.world.sql("update t set v = v where id = 1")
        with outhaul.spark.resume(self.spark, place, source=self.world.url, max_workers=3) as run:
            pass
        self.same(place, run)

    def killed_driver(self):
        """The program that made the job is killed with -9: run, workers and backends end with it, and what is there stays."""
        place = self.world.local()
        self.world.close()
        code = f"""
import os, sys
sys.argv = [""]
import outhaul.spark
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
with outhaul.spark.export(spark, "t", to={place!r}, source={self.world.url!r}, keep_snapshot="60s", max_workers=2,
                          column=["g=public.gate(id)"], partitions={PARTITIONS}):
    pass
"""
        driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.reading(2)
        finally:
            driver.kill()
            driver.wait()
        until("no worker process", lambda: not self.world.worker_processes(), GONE_SECONDS)
        until("no reader", lambda: self.world.readers() == 0, GONE_SECONDS)
        self.world.open()
        with outhaul.spark.resume(self.spark, place, source=self.world.url, max_workers=3) as run:
            pass
        self.same(place, run)

    def jobs(self):
        """All exports of a job file under one snapshot, and the rest of one whose job was cancelled."""
        place = self.world.local()
        job = self.world.work / "job.toml"
        job.write_text(f"""[defaults]
to = "{place}/{{table}}"
keep_snapshot = "60s"
[[export]]
table = "public.t"
column = ["g=public.gate(id)"]
partitions = {PARTITIONS}
[[export]]
table = "public.other"
partitions = 2
""")
        self.world.sql(f"create table other as select i as id from generate_series(1, {ROWS}) i; analyze other")
        self.world.close()
        try:
            with outhaul.spark.run(self.spark, job, source=self.world.url, max_workers=3) as run:
                assert {one.export for one in run.partitions} == {0, 1}, run.partitions
                self.reading(3)
                self.spark.sparkContext.cancelAllJobs()
        except outhaul.OuthaulError as error:
            assert error.code == 11, error
        else:
            raise AssertionError("it was cancelled")
        until("no worker process", lambda: not self.world.worker_processes(), GONE_SECONDS)
        self.world.open()
        self.world.sql("insert into other values (0)")
        with outhaul.spark.resume(self.spark, place, source=self.world.url, max_workers=3) as run:
            pass
        assert [one.rows for one in run.report.exports if one.raw.get("name") == "public.other"] in ([], [ROWS])
        assert self.world.read(f"{place}/public.t").equals(self.alone)
        assert self.world.read(f"{place}/public.other").num_rows == ROWS
        self.world.nothing_left(place)

    def w11_another_version(self):
        place = self.world.local()
        try:
            with self.export(place):
                pass
        except outhaul.UsageError as error:
            assert error.code == 2 and "is outhaul 9.9.9" in str(error), error
        else:
            raise AssertionError("another version read")
        self.world.nothing_left(place)
        assert not os.path.exists(place) or not os.listdir(place), os.listdir(place)

    def w12_copies_of_slow_tasks(self):
        place = self.world.s3()
        self.world.close("one")
        with self.export(place) as run:
            until("the others", lambda: self.completed() == PARTITIONS - 1, 90)
            # The copy reads on another host what the first attempt still reads.
            until("a copy", lambda: self.world.readers() == 2, 90)
            asked = self.world.sql("select count(distinct query) from pg_stat_activity where state = 'active'"
                                   " and application_name like 'outhaul/%/reader%'")  # fmt: skip
            assert asked == "1", "two partitions are read, and no copy of one"
            self.world.open()
        self.same(place, run)
        assert run.report.parts == PARTITIONS, run.report


def lossy(url, losses):
    """A port in front of the server that cuts the first connections. Its number, and how many it has cut."""
    target = int(re.search(r":(\d+)/", url).group(1))
    listener = socket.create_server(("127.0.0.1", 0))
    cut = []

    def pump(source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    # Closed alone it would stay open for the other thread, which reads from it.
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def accept():
        while True:
            client, _ = listener.accept()
            if len(cut) < losses:
                cut.append(1)
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", target))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1], lambda: len(cut)


# Which cases share an application of Spark, and its settings.
SPECULATION = {
    "spark.speculation": "true", "spark.speculation.interval": "200ms", "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.5", "spark.speculation.minTaskRuntime": "500ms",
}  # fmt: skip
SESSIONS = [
    ("usual", {"spark.speculation": "false"}, [
        "w0_one_two_and_three_workers", "w1_executor_killed_mid_part", "w1b_worker_daemon_killed",
        "w2_killed_behind_the_receipt", "w3_all_executors_lost", "w5_what_nobody_can_read_ends_it",
        "w5_what_may_pass_is_tried_again", "w5_too_many_tries_end_it", "w10_cancelled", "w10_cancelled_by_spark",
        "killed_driver", "jobs",
    ]),
    ("speculation", SPECULATION, ["w12_copies_of_slow_tasks"]),
    ("another", {}, ["w11_another_version"]),
]  # fmt: skip


def run(world, cluster, passing, only):
    cases = Cases(world, cluster, passing)
    other = world.work / "another-outhaul"
    other.write_text("#!/bin/sh\necho 'outhaul 9.9.9 (another one)'\n")
    other.chmod(0o755)
    count = 0
    for name, conf, names in SESSIONS:
        chosen = [case for case in names if not only or case in only]
        if not chosen:
            continue
        begun = time.monotonic()
        environment = {"OUTHAUL_BIN": str(other)} if name == "another" else {}
        cases.spark = cluster.session(f"outhaul {name}", conf.items(), environment.items())
        say(f"session {name}: {time.monotonic() - begun:.1f} s")
        for case in chosen:
            begun = time.monotonic()
            getattr(cases, case)()
            say(f"ok {case}: {time.monotonic() - begun:.1f} s")
            count += 1
        cases.spark.stop()
        until("no executor", lambda: not cluster.executors(), 30)
    return count


def main():
    parser = argparse.ArgumentParser()
    for name in ("url", "log", "work", "tests-python"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    # What a terminal or scripts/test-spark sends has to reach the cluster too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    world = World(args)
    world.fill()
    cluster = None
    passing = Passing(world.stop_file)
    try:
        cluster = Cluster(world)
        count = run(world, cluster, passing, [name for name in args.only.split(",") if name])
    except BaseException:
        for log in sorted(world.work.glob("127*.log")) + sorted(world.work.glob("master.log")):
            say(f"--- {log.name}\n" + "".join(log.read_text(errors="replace").splitlines(True)[-5:]))
        raise
    finally:
        world.open()
        passing.held = False
        if cluster is not None:
            cluster.stop()
    print(json.dumps({"cases": count}))
    print(f"{count} passed, 0 failed")


if __name__ == "__main__":
    main()
