"""SIGINT and SIGTERM in the driver: once asks the workers to save and leave, twice ends everything at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INTERRUPTED = 75
"""Exit code that says: give the same command again (EX_TEMPFAIL)."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_code(code: int) -> int:
    """What a training process exits with: `code`, but 0 where it was interrupted under torchrun.

    torchrun starts all processes again after any other code. How the run ended is in outcome.json.
    """
    return 0 if code == INTERRUPTED and "TORCHELASTIC_RUN_ID" in os.environ else code


abandoned = threading.Event()
"""Set when threads or processes were left behind: the command line then ends its process without waiting for them."""

TERMINATED = threading.Event()
"""Set in a worker's process that was told to end (SIGTERM): it saves and leaves at the next step."""


class StopRequest:
    """What the signals have asked for so far.

    Before `begin` and after `end` there is nothing to save: a signal raises KeyboardInterrupt. In between, the first
    signal writes the file `stop` into the run folder, which all workers watch for.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "stop"
        self._training = False
        self.count = 0
        self.since = 0.0

    def begin(self) -> None:
        """From now on there is training to be saved."""
        self._training = True

    def end(self) -> None:
        """The workers are through; a signal ends what is left (the report) like any program."""
        self._training = False

    def waited(self) -> float:
        """Seconds since the first signal; 0 without one."""
        return time.monotonic() - self.since if self.count else 0.0

    def handle(self, number: int, frame: Any) -> None:
        """The signal handler."""
        if "ray" in sys.modules:
            # Ray's own handler stands before this one and sets an alarm that aborts the process 3 s after SIGTERM.
            signal.alarm(0)
        if not self._training:
            raise KeyboardInterrupt
        self.count += 1
        if self.count == 1:
            self.since = time.monotonic()
            with contextlib.suppress(OSError):
                self._file.touch()


@contextlib.contextmanager
def stop_on_signals(folder: Path) -> Iterator[StopRequest]:
    """Install the handlers; a signal that was ignored before (nohup) stays ignored."""
    request = StopRequest(folder)
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [number for number in SIGNALS if previous[number] is not signal.SIG_IGN]
    for number in mine:
        signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number in mine:
            signal.signal(number, previous[number])
