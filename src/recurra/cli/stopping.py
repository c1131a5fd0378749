"""Being asked to stop, without being torn out of the middle of something."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Stopping:
    """While it is entered, Ctrl-C and SIGTERM only set ``signal``, and make ``wake`` readable.

    A second one of them ends the command at once, as usual.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.wake: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may listen to signals
        self.wake, self._into = os.pipe()
        os.set_blocking(self._into, False)
        os.set_blocking(self.wake, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._asked)
        self._before_wake = signal.set_wakeup_fd(self._into, warn_on_full_buffer=False)
        return self

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def asked(self) -> bool:
        """Shall the command stop?"""
        return self.signal is not None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.wake is None:
            return
        signal.set_wakeup_fd(self._before_wake)
        for number, before in self._before.items():
            signal.signal(number, before)
        for descriptor in (self.wake, self._into):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.wake = None
