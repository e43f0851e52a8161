import math
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.modes import grid, judged_modes, kl_to_uniform, mixture_modes, ring, stacked_modes
from generative.errors import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "mee_gan" / "metrics_a.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize(("name", "means"), [("ring", ring()), ("grid", grid())])
def test_golden_mixtures(golden, name, means):
    torch.testing.assert_close(means, golden[f"{name}_means"])
    found = mixture_modes(golden[f"{name}_samples"], means, float(golden[f"{name}_std"]))
    assert torch.equal(found.counts, golden[f"{name}_counts"])
    assert found.modes.value == golden[f"{name}_modes"]
    assert found.high_quality.value == pytest.approx(float(golden[f"{name}_hq"]), rel=1e-12)
    for field, key in (("reverse_kl", "reverse_kl"), ("jensen_shannon", "jsd"), ("entropy", "entropy")):
        assert getattr(found, field).value == pytest.approx(float(golden[f"{name}_{key}"]), rel=1e-9)
    # the error of a share is known
    share = found.high_quality.value
    assert found.high_quality.stderr == pytest.approx(math.sqrt(share * (1 - share) / 2500), rel=0.2)


def test_conventions_of_high_quality():
    point = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    origin = torch.zeros(1, 2)
    assert mixture_modes(point, origin, 1.0).high_quality.value == 0.5
    assert mixture_modes(point, origin, 1.0, inclusive=True).high_quality.value == 1.0


def test_points_without_quality_have_no_modes():
    found = mixture_modes(torch.full((5, 2), 100.0), ring(), 0.01)
    assert (found.modes.value, found.high_quality.value) == (0, 0)
    assert found.reverse_kl.value == math.inf
    assert found.reverse_kl.stderr is None


def test_golden_stacked_digits(golden):
    found = stacked_modes(golden["stacked_labels"])
    assert found.modes.value == golden["stacked_modes"]
    assert found.kl.value == pytest.approx(float(golden["stacked_kl"]), rel=1e-9)
    assert found.kl.stderr > 0
    assert found.confidence is None


def test_a_perfect_sampler_is_as_far_as_chance_has_it():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 10, (26_000, 3)))
    found = stacked_modes(labels)
    assert found.modes.value == 1000
    assert found.kl.value == pytest.approx(999 / 52_000, rel=0.2)
    assert "0.019" in found.kl.protocol


def test_judged_samples():
    probabilities = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]]])
    found = judged_modes(probabilities, "a judge")
    assert found.modes.value == 1
    assert found.kl.value == pytest.approx(math.log(4))
    assert found.confidence.value == pytest.approx(0.75)
    assert found.confidence.stderr == pytest.approx(0.1)
    assert found.modes.protocol.startswith("2 samples, 4 modes")
    assert "a judge" in found.modes.protocol


def test_kl_to_uniform():
    assert kl_to_uniform(np.full((2, 4), 3.0)) == pytest.approx([0, 0], abs=1e-12)
    assert kl_to_uniform(np.array([7.0, 0.0])) == pytest.approx(math.log(2))


def test_bad_samples_are_refused():
    with pytest.raises(DataError, match=r"points \[4, 3\]"):
        mixture_modes(torch.zeros(4, 3), ring(), 0.01)
    with pytest.raises(DataError, match=r"each label 0 \.\. 9"):
        stacked_modes(torch.tensor([[1, 2, 10]]))
