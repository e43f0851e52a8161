"""EDM with dropout, augmentation and a power-function average: the same numbers for one and two ranks."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.rank_curves import Ranks

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
ranks = Ranks(pathlib.Path(__file__).with_name("train_edm.py"), 2e-4, (1e-3, 2e-4))


def test_ranks_micro_batches_and_strategies_agree(tmp_path: pathlib.Path) -> None:
    """Also a run that two ranks begin and one goes on with, average and all."""
    alone, in_parts = ranks(1, {}, {"micro": 2, "recompute": True})
    assert alone["trained"] != alone["ema"]
    ranks.close(in_parts, alone)
    two, sharded, stopped = ranks(2, {}, {"strategy": "fsdp"}, {"stop_at": 3, "store": str(tmp_path)})
    ranks.close(two, alone)
    ranks.close(sharded, alone)
    assert stopped["curve"] == two["curve"][:3]
    ranks.close(ranks.resumed(1, tmp_path, stopped), alone)
