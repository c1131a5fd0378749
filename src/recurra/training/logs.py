"""What a run writes for those who watch it: a table and TensorBoard events."""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

from .files import write_atomically

METRICS, EVENTS = "metrics.csv", "events"


def table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Rows as CSV; the columns are those of the rows, in the order in which they first occur."""
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Logs:
    """``metrics.csv`` (a row for each validation) and ``events/`` (TensorBoard) in a run folder.

    Args:
        folder: of the run.
        first_update: of this process; events of later updates, from before a kill, are marked as void.
    """

    def __init__(self, folder: Path, first_update: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self.folder = folder
        path = folder / EVENTS / f"events.out.tfevents.{time.time_ns() // 1000:017d}.{os.getpid()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "ab")  # noqa: SIM115 - stays open as long as the run
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first_update:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=first_update + 1, session_log=start))
        self.file.flush()

    def add(self, update: int, values: dict[str, float]) -> None:
        """Scalars of one update."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        parts = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=update, summary=Summary(value=parts)))

    def write_table(self, rows: list[dict[str, Any]]) -> None:
        """Replace the table, and bring the events to the disk."""
        self.file.flush()
        if rows:
            write_atomically(self.folder / METRICS, table(rows))

    def close(self) -> None:
        """Done."""
        self.file.close()

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self.file).write(event.SerializeToString())
