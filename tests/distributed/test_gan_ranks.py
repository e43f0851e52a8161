"""A GAN with batch and spectral normalisation trains alike on 1, 2 and 4 ranks, under each strategy that it may use."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("gan_ranks.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


def job(strategy, penalty):
    return {
        "method": "gan",
        "steps": 4,
        "parallel": {"strategy": strategy},
        "options": {"penalty": penalty},
        "train": {"optimizer": {"lr": 0.001, "clip_norm": 5.0}},
    }


def values(records):
    return [value for record in records for value in record.values() if value is not None]


CASES = {2: [("ddp", 0.0), ("ddp", 0.1), ("zero1", 0.1), ("zero2", 0.0)], 4: [("ddp", 0.1)]}


@pytest.fixture(scope="module")
def alone():
    """What one process comes to, by penalty."""
    penalties = (0.0, 0.1)
    found = run_group(SCRIPT, 1, {"jobs": [job("none", penalty) for penalty in penalties]})[0]
    return dict(zip(penalties, found, strict=True))


@pytest.mark.parametrize("world", CASES)
def test_equal_to_one_process(world, alone):
    ranks = run_group(SCRIPT, world, {"jobs": [job(*case) for case in CASES[world]]}, timeout=150)
    for index, (strategy, penalty) in enumerate(CASES[world]):
        found, expected = ranks[0][index], alone[penalty]
        assert set(found["engines"].values()) == {strategy}
        assert values(found["losses"]) == pytest.approx(values(expected["losses"]), rel=2e-5)
        assert values(found["norms"]) == pytest.approx(values(expected["norms"]), rel=1e-3)
        assert found["probe"] == pytest.approx(expected["probe"], rel=1e-4)
        # Each rank holds the same buffers and weights, to the bit.
        assert len({rank[index]["probe"] for rank in ranks}) == 1
        assert len({rank[index]["weights"] for rank in ranks}) == 1
