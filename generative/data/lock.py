"""A lock between processes that the system releases when its holder dies."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, waiting for whoever holds it. Yields False where the file system has no locks.

    The file stays behind: were it removed, two processes could each lock a file of that name.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            logging.getLogger(__name__).warning(
                "another process is at work on %s; waiting for it", path.with_suffix("")
            )
            fcntl.flock(file, fcntl.LOCK_EX)
            held = True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = False
        yield held
