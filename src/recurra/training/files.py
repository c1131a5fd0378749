"""Files that are never half written."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file beside its place, then rename it into place: readers see the old file or the new one, never a part.

    Args:
        path: where to; missing folders are made.
        content: bytes, or text, which is written as UTF-8 with ``\\n`` at the end of lines.

    Raises:
        OSError: the place cannot be written; it names the place, and nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder, "a", "b.txt"), "text")
        ...     Path(folder, "a", "b.txt").read_text()
        'text'
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.filename == str(beside):  # of no use to a reader
            error.filename = str(path)
        raise
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
