"""The program as a process: where it is, its flags, its events, its report."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from outhaul.errors import error_of

LOG = logging.getLogger("outhaul")

Option = Union[str, int, float, bool, "os.PathLike[str]", Sequence[Union[str, int]], None]
"""The value of an option: a switch is True or False, an option that may be repeated takes a list, None leaves it out."""

# What these functions say to the program themselves.
OURS = ("from", "to", "report", "progress", "log_format", "color")

LEVELS = {"WARN": logging.WARNING, "INFO": logging.INFO}

# A signal's clean end takes seconds; whoever stands still longer is ended.
STOP_SECONDS = 120


@dataclass(frozen=True)
class Report:
    """What the program says of an export that is committed, or of a job whose exports are, or of what either would do."""

    status: str
    """``complete``, or ``truncated`` where a cap left rows out; ``planned`` with ``dry_run=True``."""
    run_id: str
    destination: str
    """URL of the destination, without credentials."""
    manifest: Optional[str]
    """URL of the manifest."""
    rows: int
    parts: int
    bytes: int
    """Bytes of all parts."""
    seconds: float
    exports: Tuple["Report", ...]
    """Of a job: what each of its exports has come to. Rows, parts and bytes of the job are theirs together."""
    raw: Mapping[str, Any]
    """The whole report; config/report.v1.schema.json describes it."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Report":
        """From the JSON of the program."""
        exports = tuple(cls.of(one) for one in raw.get("exports") or [])

        def total(name: str) -> int:
            return int(raw.get(name) or 0) + sum(int(one.raw.get(name) or 0) for one in exports)

        destination = raw.get("destination") or raw.get("root") or ""
        # A plan says there what stands at the destination, too.
        place = destination.get("url", "") if isinstance(destination, dict) else destination
        return cls(
            status=str(raw.get("status") or "planned"),
            run_id=str(raw.get("run_id") or ""),
            destination=str(place),
            manifest=raw.get("manifest"),
            rows=total("rows"),
            parts=total("parts"),
            bytes=total("bytes"),
            seconds=float(raw.get("seconds") or 0),
            exports=exports,
            raw=raw,
        )


def find_program() -> str:
    """The path of the program: ``OUTHAUL_BIN``, else what the wheel installed, else ``outhaul`` in the search path.

    Raises FileNotFoundError where there is none, and PermissionError where it may not be run.
    """
    given = os.environ.get("OUTHAUL_BIN")
    for place in [given] if given else _places():
        if place and os.path.isfile(place):
            if not os.access(place, os.X_OK):
                raise PermissionError(f"{place} may not be executed: copy it to another disk, or chmod +x")
            return os.path.abspath(place)
    where = f"OUTHAUL_BIN is {given}, and no file is there" if given else "the wheel of outhaul is not installed here"
    raise FileNotFoundError(f"no program outhaul: {where} ({sys.executable} on {os.uname().nodename})")


def _places() -> Iterator[Optional[str]]:
    try:
        # Wherever pip put it: a venv, the user's folder, a --target.
        distribution = importlib.metadata.distribution("outhaul")
        for file in distribution.files or []:
            if file.name == "outhaul" and file.parent.name in ("bin", "Scripts"):
                yield str(distribution.locate_file(file))
    except importlib.metadata.PackageNotFoundError:
        pass
    yield os.path.join(sysconfig.get_path("scripts"), "outhaul")
    # An environment that was packed and unpacked elsewhere, and pip's --target.
    yield os.path.join(os.path.dirname(sys.executable), "outhaul")
    yield str(Path(__file__).resolve().parent.parent / "bin" / "outhaul")
    yield shutil.which("outhaul")


def version(program: Optional[str] = None) -> str:
    """The version of the program, such as ``0.1.0``."""
    path = program or find_program()
    said = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


def flags(options: Mapping[str, Option]) -> Tuple[List[str], Dict[str, str]]:
    """Options as the program takes them: its arguments, and variables for switches that are to be off.

    A flag that switches off there is none; the variable wins over a config file all the same.
    """
    arguments: List[str] = []
    variables: Dict[str, str] = {}
    for name, value in options.items():
        if name in OURS:
            raise TypeError(f"{name} is not for the caller to choose")
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if value is True:
            arguments.append(flag)
        elif value is False:
            variables["OUTHAUL_" + name.upper()] = "false"
        elif isinstance(value, (list, tuple)):
            arguments.extend(f"{flag}={one}" for one in value)
        else:
            arguments.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
    return arguments, variables


class Process:
    """One run of the program, with its standard error read by a thread of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        *,
        program: Optional[str] = None,
        piped: bool = False,
        heard: Callable[[Dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self.last_words = ""
        self.popen = subprocess.Popen(
            [program or find_program(), *arguments],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
            # Ctrl-C reaches us alone, and we stop it once: a second signal would have it leave at once.
            start_new_session=True,
        )
        self._heard = heard
        self._listener = threading.Thread(target=self._listen, name="outhaul-stderr", daemon=True)
        self._listener.start()

    @property
    def stdout(self) -> IO[bytes]:
        """What it prints: JSON lines."""
        assert self.popen.stdout is not None
        return self.popen.stdout

    def _listen(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            text = line.decode("utf-8", "replace").rstrip()
            said = parsed(text)
            if said and "event" in said:
                self._heard(said)
            elif said and "level" in said:
                # An error stands in the exception.
                level = LEVELS.get(str(said["level"]), logging.DEBUG)
                LOG.log(level, "%s", said.get("message", text))
            elif text:
                self.last_words = text
                LOG.debug("%s", text)

    def stop(self) -> None:
        """Has it end cleanly, and waits for that; whoever reads its output calls `ended`."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()

    def ended(self) -> int:
        """Waits for its end: the exit code, or minus the number of the signal that ended it."""
        code = self.popen.wait()
        self._listener.join()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        return code


def parsed(text: Union[str, bytes]) -> Dict[str, Any]:
    """A line of JSON; empty where it is no object."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def command(
    verb: str,
    target: str,
    source: Optional[str],
    options: Mapping[str, Option],
    progress: str = "none",
) -> Tuple[List[str], Dict[str, str]]:
    """The arguments and variables of an export to ``target``, of its resumption there, or of the job file ``target``."""
    if verb == "export" and target == "-":
        raise ValueError("to='-' would mix the data with the report: take a folder or a file")
    arguments, variables = flags(options)
    named = [f"--to={target}"] if verb == "export" else [target]
    said = ["--report=json", f"--progress={progress}", "--log-format=json", "--color=never"]
    if source is not None:
        # A URL may hold a password, which everybody could read among the arguments of a process.
        variables["OUTHAUL_FROM"] = source
    return [verb, *named, *said, *arguments], variables


def events(
    table: Optional[str] = None,
    *,
    to: Union[str, "os.PathLike[str]"],
    source: Optional[str] = None,
    **options: Option,
) -> Iterator[Dict[str, Any]]:
    """Runs an export and yields its events as they come, the last of them ``run_finished`` with the report.

    It takes what ``export`` takes and raises what ``export`` raises, after the last event. The export begins with the first
    event that is asked for. Closing the iterator before its end stops the export, which then publishes nothing.
    """
    arguments, variables = command("export", os.fspath(to), source, {"table": table, **options}, "json")
    return _events(arguments, variables)


def _events(arguments: List[str], variables: Dict[str, str]) -> Generator[Dict[str, Any], None, Dict[str, Any]]:
    """Yields events; its value is the report."""
    waiting: List[Dict[str, Any]] = []
    news = threading.Condition()

    def heard(event: Dict[str, Any]) -> None:
        with news:
            # Nobody wants all of the totals that came while he was busy.
            if event["event"] == "progress" and waiting and waiting[-1]["event"] == "progress":
                waiting.pop()
            waiting.append(event)
            news.notify()

    process = Process(arguments, variables, heard=heard)
    said: List[bytes] = []
    ended = threading.Event()

    def read() -> None:
        for line in process.stdout:
            said[:] = [line]
        process.ended()
        ended.set()
        with news:
            news.notify()

    reader = threading.Thread(target=read, name="outhaul-stdout", daemon=True)
    reader.start()
    try:
        while True:
            with news:
                while not waiting and not ended.is_set():
                    news.wait()
                if not waiting:
                    break
                event = waiting.pop(0)
            yield event
    finally:
        if not ended.is_set():
            process.stop()
        reader.join()
    report = parsed(said[-1]) if said else {}
    code = process.popen.returncode
    if code != 0:
        raise error_of(code, report, process.last_words)
    return report


def run(
    job: Union[str, "os.PathLike[str]"],
    *,
    source: Optional[str] = None,
    **options: Option,
) -> Report:
    """Runs a job file: all its exports under one snapshot. The report has one of each in ``exports``.

    Options are the flags of ``outhaul run``: ``date="2026-11-30"``, ``run_id="night"``. Raises a subclass of OuthaulError by
    the gravest exit code of the exports; its ``report`` says which of them are committed all the same.
    """
    arguments, variables = command("run", os.fspath(job), source, options)
    running = _events(arguments, variables)
    try:
        while True:
            next(running)
    except StopIteration as end:
        return Report.of(end.value)
    finally:
        running.close()


def export(
    table: Optional[str] = None,
    *,
    to: Union[str, "os.PathLike[str]"],
    source: Optional[str] = None,
    on_event: Optional[Callable[[Dict[str, Any]], None]] = None,
    **options: Option,
) -> Report:
    """Exports a table, a view or the rows of a ``query``, and returns the report once the export is committed.

    ``to`` is a folder, a file or a URL; ``source`` the database, ``env:NAME`` or a URL, without which ``DATABASE_URL`` or
    the ``PG*`` variables count. ``on_event`` gets every event as ``events`` yields it. All other options are the program's
    flags with underscores: ``query="select …"``, ``format="csv"``, ``max_rows=1000``, ``columns="id,name"``,
    ``object_tag=["team=a", "kind=b"]``. True and False are for switches: ``sha256=True``.

    Raises a subclass of OuthaulError by the exit code; ``Truncated`` where a cap left rows out and neither ``limit`` nor
    ``allow_truncated`` was given. KeyboardInterrupt and an exception of ``on_event`` stop the export, which then publishes
    nothing.
    """
    arguments, variables = command("export", os.fspath(to), source, {"table": table, **options}, "json")
    running = _events(arguments, variables)
    try:
        while True:
            event = next(running)
            if on_event is not None:
                on_event(event)
    except StopIteration as end:
        return Report.of(end.value)
    finally:
        running.close()
