"""Lines as they come, from a file or from a pipe that stays open."""

from __future__ import annotations

import os
import select
import stat
import time

from ..core.checks import sentence

BLOCK, LONGEST = 1 << 16, 1 << 20


class Lines:
    """The lines of an open file, one at a time; waiting for one can be interrupted, and nothing is lost then.

    Args:
        descriptor: of the open file.
        wake: a descriptor; as soon as it can be read, `next` stops waiting.
        unread: what was read earlier and comes before all else.

    Example:
        >>> import os
        >>> out, into = os.pipe()
        >>> _ = os.write(into, b"one\\ntwo\\nth")
        >>> os.close(into)
        >>> lines = Lines(out)
        >>> lines.next(), lines.unread, lines.next(), lines.next(), lines.next(), lines.ended
        (b'one', b'two\\nth', b'two', b'th', None, True)
    """

    def __init__(self, descriptor: int, *, wake: int | None = None, unread: bytes = b"") -> None:
        self.descriptor, self.wake = descriptor, wake
        self.ended = False
        self._data, self._at = unread, 0
        waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._selects = waits and os.name != "nt"  # elsewhere only sockets can be waited for

    @property
    def unread(self) -> bytes:
        """What was read from the file, but not asked for yet."""
        return self._data[self._at :]

    @property
    def more(self) -> bool:
        """Is there a line that needs no waiting?"""
        return self._data.find(b"\n", self._at) >= 0

    def next(self, timeout_s: float | None = None) -> bytes | None:
        """The next line without its end; None at the end of the file, when woken, or when the time is over.

        Args:
            timeout_s: how long to wait; None for as long as it takes.

        Raises:
            ValueError: a line of more than 1 MiB.
        """
        begin = time.monotonic()
        while True:
            end = self._data.find(b"\n", self._at)
            if end >= 0:
                line = self._data[self._at : end]
                self._at = end + 1
                return line.removesuffix(b"\r")
            if len(self._data) - self._at > LONGEST:
                raise ValueError(sentence("recurra", "a line", "at most 1 MiB long", "more", "Is it a stream of rows?"))
            if self.ended:
                line = self._data[self._at :]
                self._data, self._at = b"", 0
                return line or None
            left = None if timeout_s is None else timeout_s - (time.monotonic() - begin)
            if self._selects and not self._ready(left):
                return None
            block = os.read(self.descriptor, BLOCK)
            self._data, self._at = self._data[self._at :] + block, 0
            self.ended = not block

    def _ready(self, timeout_s: float | None) -> bool:
        both = [self.descriptor] if self.wake is None else [self.descriptor, self.wake]
        found, _, _ = select.select(both, [], [], None if timeout_s is None else max(0.0, timeout_s))
        return found == [self.descriptor]
