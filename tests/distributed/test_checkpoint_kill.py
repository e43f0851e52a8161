"""A process that dies while it saves never leaves a folder that looks complete and is not, and loses no earlier one."""

from pathlib import Path

import pytest

from tests.distributed.checkpoint_crash import every_moment, random_moments
from tests.support.fork_server import answer

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


@pytest.mark.parametrize("world", [1, 2])
def test_death_at_every_single_file_operation(tmp_path: Path, world: int) -> None:
    result = answer(every_moment, tmp_path, world)
    assert result["problems"] == []
    assert result["deaths"] > 20


@pytest.mark.parametrize("world", [1, 2])
def test_kill_9_at_random_moments(tmp_path: Path, world: int) -> None:
    result = answer(random_moments, tmp_path, world, 25)
    assert result["problems"] == []
    assert result["saved"] > 1  # on a busy machine few saves come to their end
