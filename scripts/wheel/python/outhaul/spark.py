"""Has the executors of a Spark cluster read the partitions of an export, under one snapshot.

    with outhaul.spark.export(spark, table="orders", to="s3://lake/orders/", max_workers=8) as run:
        print(run.run_id, len(run.partitions))
    print(run.report.rows)

The driver starts ``outhaul export --workers external``, which plans, holds the snapshot and commits. Each partition is one
task of one Spark job, the heaviest first, and each task runs one ``outhaul worker``. So the wheel has to be installed on the
executors too, in the same version; they need to reach the database and the destination, and connect with their own
credentials. What no worker can read ends the run after one attempt; what another attempt may read is tried again as often as
``spark.task.maxFailures`` says. A job that is cancelled takes its workers along.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import subprocess
import threading
import urllib.parse
import uuid
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from outhaul._process import Option, Process, Report, command, find_program, flags, parsed, version
from outhaul.errors import OuthaulError, Stopped, error_of

LOG = logging.getLogger("outhaul.spark")

# Options that say how to connect: the workers get them too.
CONNECTING = (
    "password_file",
    "password_command",
    "env_file",
    "aws_credential_command",
    "protect_key_file",
    "protect_key_command",
)

# What the program's exit codes mean to a task (config/cluster.md): with these another attempt may do better.
TRY_AGAIN = frozenset({11, 21, 130, 141, 143})

# How a run ends whose engine is gone.
ENGINE_GONE = 11

# Between two looks whether a cancelled job has ended.
CANCEL_SECONDS = 1.0

# So long a job whose partitions are all committed may take to end by itself; copies of slow tasks may still run.
END_SECONDS = 30.0


class WorkerFailed(Exception):
    """A worker failed, and another attempt may not: so a task ends that Spark is to try again."""


@dataclass(frozen=True)
class Partition:
    """A part of the relation, read by one task."""

    number: int
    export: Optional[int]
    """Of a job: the export, by its place in the line ``ready``."""
    weight: int
    """About its bytes, or rows: what it takes, compared with the others."""


@dataclass(frozen=True)
class Task:
    """What every task of a run is told. It travels to the executors, so nothing in it is secret."""

    destination: str
    run_id: str
    epoch: int
    plan_sha256: str
    version: str
    shares: Tuple[str, ...]
    """The partitions, as --partitions of a worker takes them."""
    options: Mapping[str, Option]


def export(
    spark: Any,
    table: Optional[str] = None,
    *,
    to: Union[str, "os.PathLike[str]"],
    source: Optional[str] = None,
    worker_options: Optional[Mapping[str, Option]] = None,
    **options: Option,
) -> "SparkRun":
    """An export whose partitions the executors of ``spark`` read; to be used in a ``with`` statement.

    It takes what ``outhaul.export`` takes. ``max_workers`` is how many of them read at the same time (as many as
    ``readers`` unless given). ``source`` and the options of a password reach the workers too, as they are: ``env:NAME``, a
    path and a command mean those of the executor. ``worker_options`` has other ones for them, such as
    ``{"source": "env:SHOP_URL"}``. A ``source`` with a password in it is refused unless ``worker_options`` has its own, for
    it would travel to the executors inside the job.

    The ``with`` statement begins with a run that waits for its workers, and ends once the export is committed; then
    ``run.report`` is there. It raises a subclass of ``outhaul.OuthaulError`` as ``outhaul.export`` does. An exception inside
    it, or ``run.cancel()``, stops the job and the run, which then publishes nothing.
    """
    return SparkRun(spark, "export", os.fspath(to), source, worker_options, {"table": table, **options})


def run(
    spark: Any,
    job: Union[str, "os.PathLike[str]"],
    *,
    source: Optional[str] = None,
    worker_options: Optional[Mapping[str, Option]] = None,
    **options: Option,
) -> "SparkRun":
    """All exports of a job file under one snapshot, their partitions read by the executors. Else as ``export``.

    Options are the flags of ``outhaul run``. ``run.report`` has a report of each export.
    """
    return SparkRun(spark, "run", os.fspath(job), source, worker_options, options)


def resume(
    spark: Any,
    to: Union[str, "os.PathLike[str]"],
    *,
    source: Optional[str] = None,
    worker_options: Optional[Mapping[str, Option]] = None,
    **options: Option,
) -> "SparkRun":
    """Goes on with a run that died at the destination ``to``, or with a job by its root: only what has no receipt is read. Else as ``export``.

    Somebody must still hold the run's snapshot: ``keep_snapshot`` of the export, or ``outhaul keep`` beside it.
    """
    return SparkRun(spark, "resume", os.fspath(to), source, worker_options, options)


class SparkRun:
    """A run that the executors read for. ``export``, ``run`` and ``resume`` make it."""

    run_id: str
    destination: str
    epoch: int
    plan_sha256: str
    partitions: List[Partition]
    """What is to be read, the heaviest first."""
    max_workers: int
    receipts: List[Dict[str, Any]]
    """What the workers said of the partitions that they have read: ``partition``, ``attempt``, ``rows``, ``bytes``, ``parts``,
    and ``already`` where another attempt had read it. They come with the end of the Spark job."""
    report: Report
    """The program's report; there once the ``with`` statement has ended."""

    def __init__(
        self,
        spark: Any,
        verb: str,
        target: str,
        source: Optional[str],
        worker_options: Optional[Mapping[str, Option]],
        options: Mapping[str, Option],
    ) -> None:
        for taken in ("workers", "stdin"):
            if taken in options:
                raise TypeError(f"{taken} is not for the caller to choose")
        self._spark = spark
        self._worker_options = _of_workers(source, options, worker_options or {})
        settings: Dict[str, Option] = {**options, "workers": "external", "stdin": "watch"}
        self._arguments, self._variables = command(verb, target, source, settings)
        self._job: Optional[_Job] = None
        self._cancelled = False
        self.receipts = []
        self._said: List[bytes] = []

    def __enter__(self) -> "SparkRun":
        program = find_program()
        self._process = Process(self._arguments, self._variables, program=program, piped=True)
        try:
            ready = self._ready()
            if ready is not None:
                self._begin(ready)
        except BaseException:
            self._process.stop()
            self._process.ended()
            raise
        return self

    def _begin(self, ready: Mapping[str, Any]) -> None:
        self.run_id = ready["run_id"]
        self.destination = ready["destination"]
        self.epoch = ready["epoch"]
        self.plan_sha256 = ready["plan_sha256"]
        self.max_workers = ready["max_workers"]
        self.partitions = [
            Partition(one["number"], one.get("export"), one["weight"]) for one in ready["partitions"]
        ]
        task = Task(
            destination=self.destination,
            run_id=self.run_id,
            epoch=self.epoch,
            plan_sha256=self.plan_sha256,
            version=ready["outhaul_version"],
            shares=tuple(_share(one) for one in self.partitions),
            options=self._worker_options,
        )
        self._job = _Job(self._spark, task, f"outhaul {self.run_id}", self._tell, self._hang_up)
        self._reader = threading.Thread(target=self._read, args=(self._job,), name="outhaul-stdout", daemon=True)
        self._reader.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._job is None:
            # There was nothing to read.
            return
        if error is not None:
            self.cancel()
            self._end()
            return
        try:
            self._end()
        except BaseException:
            self.cancel()
            self._end()
            raise
        self._judge()

    def cancel(self) -> None:
        """Stops the job, its workers and the run: what was uploaded is removed, and nothing is published."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()
        self._process.stop()

    def _ready(self) -> Optional[Dict[str, Any]]:
        """The first line, which the run prints once it waits for workers. None where all was committed before: the report
        says so, by ``run_id`` or ``on_existing="skip"``."""
        line = self._process.stdout.readline()
        said = parsed(line)
        if said.get("type") == "ready":
            return said
        report = parsed([line, *self._process.stdout][-1])
        code = self._process.ended()
        if code != 0:
            raise error_of(code, report, self._process.last_words)
        self.report = Report.of(report)
        self.run_id, self.destination = self.report.run_id, self.report.destination
        self.partitions = []
        return None

    def _read(self, job: "_Job") -> None:
        """Until the run has ended; then the job has no purpose any more."""
        for line in self._process.stdout:
            self._said[:] = [line]
        code = self._process.popen.wait()
        # The journal is quicker than Spark: a job whose receipts are all there is about to end by itself.
        job.join(END_SECONDS if code == 0 else 0)
        job.cancel()

    def _tell(self, line: str) -> None:
        """A line of a worker, for the run."""
        said = parsed(line)
        if said.pop("type", None) == "receipt":
            self.receipts.append(said)
        self._write((line + "\n").encode())

    def _hang_up(self) -> None:
        """Nobody reads any more. With partitions missing the run ends, and leaves what is there for ``resume``."""
        stdin = self._process.popen.stdin
        try:
            if stdin is not None:
                stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def _write(self, text: bytes) -> None:
        stdin = self._process.popen.stdin
        try:
            if stdin is not None:
                stdin.write(text)
                stdin.flush()
        except (BrokenPipeError, ValueError):
            # The run has ended, and says why itself.
            pass

    def _end(self) -> None:
        # Without a limit: the run watches its source, its limits and its workers by itself.
        self._reader.join()
        if self._job is not None:
            self._job.join()
        self._process.ended()

    def _judge(self) -> None:
        report = parsed(self._said[-1]) if self._said else {}
        code = self._process.popen.returncode
        failed = self._job.error if self._job is not None else None
        if code == 0:
            self.report = Report.of(report)
            if failed is not None:
                LOG.warning("the export is committed, although the Spark job ended with an error: %s", failed)
            return
        if failed is not None and not self._cancelled and code == ENGINE_GONE:
            # The run only knows that nobody reads any more.
            report = {**report, "error": f"the Spark job failed: {_reason(failed)}; {report.get('error', '')}"}
        error: OuthaulError = error_of(code, report, self._process.last_words)
        if self._cancelled and code < 0:
            error = Stopped(f"run {self.run_id} was cancelled", code=143, report=report)
        raise error from failed


def _reason(error: BaseException) -> str:
    """The line of an error of Spark's that says why: the last exception that is named in it, in Python or in Java."""
    lines = [re.sub(r"^(: |Caused by: )", "", line.strip()) for line in str(error).strip().splitlines()]
    named = [line for line in lines if re.match(r"[\w.$]+(Error|Exception|Failed): ", line)]
    return (named[-1:] or lines[:1] or [type(error).__name__])[0][:500]


def _share(partition: Partition) -> str:
    return str(partition.number) if partition.export is None else f"{partition.export}:{partition.number}"


def _of_workers(
    source: Optional[str], options: Mapping[str, Option], own: Mapping[str, Option]
) -> Dict[str, Option]:
    """The options of the workers: those of the run that say how to connect, and their own ones before these."""
    shared: Dict[str, Option] = {name: options[name] for name in CONNECTING if name in options}
    if source is not None and "source" not in own:
        if _has_password(source):
            raise ValueError(
                "source has a password in it, which would travel to the executors inside the job: use env:NAME, "
                'password_file or password_command, or worker_options={"source": …}'
            )
        shared["source"] = source
    return {**shared, **own}


def _has_password(source: str) -> bool:
    if source.startswith("env:"):
        return False
    if "://" not in source:
        return any(word.strip().startswith("password") for word in source.replace("=", " = ").split())
    # Cut as outhaul cuts it: a password may hold "#", "?" and "/" as they are.
    rest = source.split("://", 1)[1]
    user, at, _ = rest.rpartition("@")
    return (bool(at) and ":" in user) or "password" in urllib.parse.parse_qs(rest.partition("?")[2])


class _Job:
    """The Spark job of a run, on a thread of its own."""

    def __init__(
        self, spark: Any, task: Task, name: str, tell: Callable[[str], None], ended: Callable[[], None]
    ) -> None:
        self.error: Optional[BaseException] = None
        self._spark = spark
        self._task = task
        self._name = name
        self._tell = tell
        self._ended = ended
        self._tag = f"outhaul-{uuid.uuid4().hex}"
        self._done = threading.Event()
        self._stop = threading.Event()
        self._thread = _inheriting(spark, self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._task.shares and not self._stop.is_set():
                _name_job(self._spark, self._tag, self._name)
                count = len(self._task.shares)
                rows = self._spark.range(0, count, 1, count).mapInArrow(reader(self._task), "line string")
                for row in rows.collect():
                    self._tell(row["line"])
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits
            self.error = error
        finally:
            self._done.set()
            self._ended()

    def cancel(self) -> None:
        """Has it end soon, its tasks too. Once it has ended this does nothing."""
        if not self._stop.is_set():
            self._stop.set()
            threading.Thread(target=self._cancelling, name="outhaul-cancel", daemon=True).start()

    def _cancelling(self) -> None:
        # One that is cancelled before Spark knows it would run on.
        while not self._done.is_set():
            try:
                _cancel_job(self._spark, self._tag)
            except Exception as error:  # noqa: BLE001 - the session may have ended, and its jobs with it
                LOG.debug("the job cannot be cancelled: %s", error)
            self._done.wait(CANCEL_SECONDS)

    def join(self, seconds: Optional[float] = None) -> None:
        """Waits for its end, so long at most."""
        self._thread.join(seconds)


def _inheriting(spark: Any, run: Callable[[], None]) -> threading.Thread:
    """A thread with the caller's local properties of Spark, such as its pool."""
    try:
        from pyspark import InheritableThread

        thread: threading.Thread = InheritableThread(run, session=spark)
    except (ImportError, TypeError):
        thread = threading.Thread(target=run)
    thread.name = "outhaul-job"
    # A program that ends by an exception waits for no job.
    thread.daemon = True
    return thread


def _context(spark: Any) -> Any:
    """The SparkContext; None under Spark Connect, which has none."""
    try:
        return spark.sparkContext
    except Exception:  # noqa: BLE001 - its class differs between versions
        return None


def _name_job(spark: Any, tag: str, name: str) -> None:
    context = _context(spark)
    if context is None:
        spark.addTag(tag)
    else:
        context.setJobGroup(tag, name, interruptOnCancel=True)


def _cancel_job(spark: Any, tag: str) -> None:
    context = _context(spark)
    if context is None:
        spark.interruptTag(tag)
    else:
        context.cancelJobGroup(tag)


def reader(task: Task) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """What ``mapInArrow`` runs on the executors: for each index of a partition the lines of the worker that read it."""

    def read(batches: Iterable[Any]) -> Iterator[Any]:
        import pyarrow

        for batch in batches:
            for index in batch.column(0).to_pylist():
                for line in work(task, task.shares[index]):
                    yield pyarrow.RecordBatch.from_arrays([pyarrow.array([line], pyarrow.string())], names=["line"])

    return read


def work(task: Task, share: str) -> Iterator[str]:
    """Runs a worker for one partition and yields its lines. The last one says `failed` where no worker would do better.

    Raises WorkerFailed where another attempt may.
    """
    program = find_program()
    found = _version_of(program)
    if found != task.version:
        where = f"{program} on {os.uname().nodename}"
        yield _failed(2, f"{where} is outhaul {found}, and the run is of outhaul {task.version}: install that wheel there")
        return
    options = dict(task.options)
    source = options.pop("source", None)
    arguments, variables = flags(options)
    if source is not None:
        variables["OUTHAUL_FROM"] = str(source)
    # The pipe is what ends the worker where Spark kills this process, as it does to a task that is cancelled. So it is
    # never closed before the worker has ended, and the worker stays in the process group that gets SIGHUP from Spark.
    worker = subprocess.Popen(
        [
            program, "worker", f"--destination={task.destination}", f"--run-id={task.run_id}", f"--epoch={task.epoch}",
            f"--plan-sha256={task.plan_sha256}", f"--partitions={share}", "--stdin=watch", "--color=never", *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **variables},
    )  # fmt: skip
    failed: Dict[str, Any] = {}
    try:
        assert worker.stdout is not None
        for line in worker.stdout:
            said = parsed(line)
            if said.get("type") == "failed":
                # Of a job the first one names the export, and the last one is the worker's own end.
                failed = failed or said
            if said.get("type") == "receipt":
                yield line.decode("utf-8", "replace").rstrip()
        code = worker.wait()
    finally:
        # By an exception this is reached while the worker reads: it ends with its standard input.
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
        worker.wait()
    if code == 0:
        return
    message = f"partition {share}: {failed.get('message') or _how(code)}"
    if code < 0 or code in TRY_AGAIN:
        raise WorkerFailed(f"{message} (exit code {code})")
    yield _failed(code, message, failed.get("export"))


@functools.lru_cache(maxsize=4)
def _version_of(program: str) -> str:
    return version(program)


def _failed(code: int, message: str, export: Optional[int] = None) -> str:
    of_job = {} if export is None else {"export": export}
    return json.dumps({"type": "failed", **of_job, "code": code, "message": message, "retryable": False})


def _how(code: int) -> str:
    if code < 0:
        return f"signal {-code} ended the worker: the machine or its container may have too little memory"
    return f"the worker ended with exit code {code}; the executor's standard error says more"
