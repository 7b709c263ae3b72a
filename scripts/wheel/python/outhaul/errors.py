"""What a run of the program can end with, other than a committed export: one class for each exit code."""

from __future__ import annotations

from typing import Any, Mapping, Optional


class OuthaulError(Exception):
    """A run that did not end as it was meant to.

    ``code`` is the exit code, or minus the number of the signal that ended the program. ``retryable`` says whether the same
    call may succeed later with nothing changed, ``hint`` what to do. ``report`` is the program's whole JSON report, empty
    where it could write none. ``resumable`` says that ``outhaul resume`` can go on with what is there.
    """

    def __init__(self, message: str, *, code: int, report: Optional[Mapping[str, Any]] = None) -> None:
        self.code = code
        self.report: Mapping[str, Any] = report or {}
        self.hint: Optional[str] = self.report.get("hint")
        # A program that was killed says nothing, and may well succeed the next time.
        self.retryable = bool(self.report.get("retryable", code < 0))
        self.resumable = bool(self.report.get("resumable", False))
        self.message = message
        super().__init__(f"{message} ({self.hint})" if self.hint else message)

    def __reduce__(self) -> Any:
        return _again, (type(self), self.message, self.code, dict(self.report))


def _again(kind: Any, message: str, code: int, report: Mapping[str, Any]) -> OuthaulError:
    made: OuthaulError = kind(message, code=code, report=report)
    return made


class InternalError(OuthaulError):
    """A bug of the program (1)."""


class UsageError(OuthaulError):
    """The options make no sense, or a worker is of another version than its run (2)."""


class Truncated(OuthaulError):
    """The export is committed, and a cap left rows out (3). ``allow_truncated=True`` makes that a success."""


class SourceRefused(OuthaulError):
    """The source refused: password, permission, TLS (10)."""


class SourceUnavailable(OuthaulError):
    """The source cannot be reached or was lost, or nobody starts workers any more (11)."""


class SnapshotLost(OuthaulError):
    """The snapshot was lost, or another promise of the manifest could not be kept (12)."""


class SchemaChanged(OuthaulError):
    """The table or a column is missing, or changed (13)."""


class DataError(OuthaulError):
    """A value cannot be written, or there are fewer rows than ``min_rows`` (14)."""


class StatementRejected(OuthaulError):
    """The source rejected the statement (15)."""


class GaveWay(OuthaulError):
    """Somebody holds a lock, or a limit of the source was reached: try later (16)."""


class DestinationRefused(OuthaulError):
    """The destination refused: credentials, permission (20)."""


class DestinationUnavailable(OuthaulError):
    """The destination cannot be reached (21)."""


class DestinationTaken(OuthaulError):
    """An export stands at the destination, or another run writes there (22)."""


class DestinationFull(OuthaulError):
    """The destination is full (23)."""


class VerificationFailed(OuthaulError):
    """What is there is not what the manifest says (30)."""


class Stopped(OuthaulError):
    """The run was told to stop, and did so cleanly (130, 143)."""


CLASSES: Mapping[int, type] = {
    1: InternalError,
    2: UsageError,
    3: Truncated,
    10: SourceRefused,
    11: SourceUnavailable,
    12: SnapshotLost,
    13: SchemaChanged,
    14: DataError,
    15: StatementRejected,
    16: GaveWay,
    20: DestinationRefused,
    21: DestinationUnavailable,
    22: DestinationTaken,
    23: DestinationFull,
    30: VerificationFailed,
    130: Stopped,
    143: Stopped,
}


def error_of(code: int, report: Mapping[str, Any], otherwise: str = "") -> OuthaulError:
    """The exception for an exit code and the report that came with it; ``otherwise`` is what is known without a report."""
    kind = CLASSES.get(code, OuthaulError)
    how = f"signal {-code} ended the program" if code < 0 else f"the program ended with exit code {code}"
    # A job has an error for each export that failed.
    several = "; ".join(str(error.get("message", "")) for error in report.get("errors") or [])
    message = report.get("error") or several or otherwise or how
    if code == 3:
        message = f"the export is committed, and a cap of {report.get('max_rows')} rows left others out"
    made: OuthaulError = kind(message, code=code, report=report)
    return made
