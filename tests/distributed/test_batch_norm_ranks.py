"""Batch normalisation over ranks equals one process, in float64, with gradients and theirs, and unequal shares."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.distributed.batch_norm_ranks import ROWS, results, standing
from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("batch_norm_ranks.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

SHARES = {1: [[ROWS]], 2: [[7, 6], [12, 1]], 4: [[4, 3, 3, 3], [6, 7, 0, 0]]}


@pytest.mark.parametrize("world", SHARES)
def test_equal_to_one_process(world):
    expected = results([ROWS], 0)
    ranks = run_group(SCRIPT, world, {"shares": SHARES[world]})
    for case in range(len(SHARES[world])):
        found = [rank["cases"][case] for rank in ranks]
        for key in ("y", "x"):
            joined = np.concatenate([np.reshape(rank[key], (-1, *np.shape(expected[key])[1:])) for rank in found])
            np.testing.assert_allclose(joined, expected[key], rtol=1e-9, atol=1e-10)
        for rank in found:
            assert rank["padding"] == 0
            assert rank["state"] == found[0]["state"]
            assert rank["gradients"] == found[0]["gradients"]
        for part in ("gradients", "state"):
            for name, value in expected[part].items():
                np.testing.assert_allclose(found[0][part][name], value, rtol=1e-9, atol=1e-10, err_msg=name)
    for rank in ranks:
        assert rank["standing"] == standing()
