"""Runs the program ``outhaul``: parallel, partitioned bulk exports under one snapshot, committed with one manifest.

``export`` runs an export to its end and returns its report; ``events`` does the same and yields what happens meanwhile;
``run`` runs the exports of a job file. What fails raises an exception whose class says what was at fault, by the program's
exit code. ``outhaul.spark`` has the executors of a Spark cluster read the partitions.

    report = outhaul.export("orders", to="s3://lake/orders/", source="env:DATABASE_URL", readers=8)
    print(report.rows, report.manifest)

Options have the names of the program's flags, with underscores: ``max_rows=1000``, ``where="id > 7"``.
"""

from outhaul._process import Report, events, export, find_program, run, version
from outhaul.errors import (
    DataError,
    DestinationFull,
    DestinationRefused,
    DestinationTaken,
    DestinationUnavailable,
    GaveWay,
    InternalError,
    OuthaulError,
    SchemaChanged,
    SnapshotLost,
    SourceRefused,
    SourceUnavailable,
    StatementRejected,
    Stopped,
    Truncated,
    UsageError,
    VerificationFailed,
)

__all__ = [
    "DataError",
    "DestinationFull",
    "DestinationRefused",
    "DestinationTaken",
    "DestinationUnavailable",
    "GaveWay",
    "InternalError",
    "OuthaulError",
    "Report",
    "SchemaChanged",
    "SnapshotLost",
    "SourceRefused",
    "SourceUnavailable",
    "StatementRejected",
    "Stopped",
    "Truncated",
    "UsageError",
    "VerificationFailed",
    "events",
    "export",
    "find_program",
    "run",
    "version",
]
