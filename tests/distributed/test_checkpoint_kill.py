"""A process that dies while it saves never leaves a folder that looks complete and is not, and loses no earlier one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.checkpoint_crash import every_moment, random_moments, tell
from tests.support.fork_server import context


def run(job: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """What `job` finds in a process of its own, which has no threads and may fork."""
    heard, said = context().Pipe(duplex=False)
    process = context().Process(target=tell, args=(said, job, *arguments))
    process.start()
    said.close()
    try:
        assert heard.poll(100)
        return heard.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("world", [1, 2])
def test_death_at_every_single_file_operation(tmp_path: Path, world: int) -> None:
    result = run(every_moment, tmp_path, world)
    assert result["problems"] == []
    assert result["deaths"] > 20


@pytest.mark.parametrize("world", [1, 2])
def test_kill_9_at_random_moments(tmp_path: Path, world: int) -> None:
    result = run(random_moments, tmp_path, world, 25)
    assert result["problems"] == []
    assert result["saved"] > 1  # on a busy machine few saves come to their end
