from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.end_to_end.runs import write_text

# The fake task is also imported by Ray's worker processes, so it is a plain module found by its name.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of a few small texts."""
    folder = tmp_path_factory.mktemp("texts")
    write_text(folder)
    return folder


@pytest.fixture
def mute():
    """A server that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                kept.append(listener.accept()[0])
        except OSError:
            return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in kept:
        connection.close()
