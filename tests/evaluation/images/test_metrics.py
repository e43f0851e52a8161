import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.images.classes import ClassStatistics, contiguous_splits, i_variance, inception_score
from evaluation.images.frechet import frechet_distance, frechet_error
from evaluation.images.jackknife import groups_for, jackknife, membership
from evaluation.images.kernel import kernel_distance
from evaluation.images.manifold import manifold
from evaluation.images.moments import Moments
from evaluation.images.neighbours import distances
from evaluation.images.prd import best_f, prd_curve, prd_scores
from generative.errors import DataError
from generative.randomness import Streams

GOLDEN = Path(__file__).parents[2] / "golden" / "mee_gan"
PRDC = ("precision", "recall", "density", "coverage")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "metrics_a.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def normal(name, count, dims, shift=0.0, scale=1.0, seed=0):
    return shift + scale * Streams(seed).normal(name, torch.arange(count), (dims,), dtype=torch.float64)


def gaussian(mean, covariance, count=11):
    return Moments(count, torch.tensor(mean).double(), torch.tensor(covariance).double() * (count - 1))


def test_golden_fid(golden):
    found = frechet_distance(Moments.of(golden["real"]), Moments.of(golden["fake"]))
    assert found.value == pytest.approx(float(golden["fid"]), rel=1e-9)


def test_fid_of_known_gaussians():
    first = gaussian([0.0, 0.0], [[4.0, 0.0], [0.0, 9.0]])
    second = gaussian([3.0, 4.0], [[1.0, 0.0], [0.0, 1.0]])
    # commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2
    assert frechet_distance(first, second).value == pytest.approx(25 + 1 + 4)
    assert frechet_distance(second, first).value == pytest.approx(30)
    # the same in turned coordinates
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
    turned = [Moments(m.count, turn @ m.mean, turn @ m.scatter @ turn.T) for m in (first, second)]
    assert frechet_distance(*turned).value == pytest.approx(30)


def test_fid_with_fewer_samples_than_features():
    x = normal("x", 5, 12)
    assert frechet_distance(Moments.of(x), Moments.of(x)).value == pytest.approx(0, abs=1e-6)
    moved = frechet_distance(Moments.of(x), Moments.of(x + 1))
    assert moved.value == pytest.approx(12, rel=1e-6)
    assert math.isfinite(frechet_error(moved, Moments.of(x), Moments.of(x + 1), (x, x + 1)))


def test_transport_maps_one_covariance_to_the_other():
    first, second = Moments.of(normal("x", 60, 4)), Moments.of(normal("y", 60, 4, scale=2))
    found = frechet_distance(first, second)
    torch.testing.assert_close(found.forward @ first.covariance @ found.forward, second.covariance)
    torch.testing.assert_close(found.backward @ second.covariance @ found.backward, first.covariance)


def test_moments_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(gaussian([0.0], [[math.nan]]), gaussian([0.0], [[1.0]]))


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_errors_are_those_of_repetition(metric):
    values, errors = [], []
    for seed in range(60):
        x, y = normal("x", 300, 4, seed=seed), normal("y", 240, 4, shift=0.4, scale=0.8, seed=seed)
        if metric == "fid":
            first, second = Moments.of(x), Moments.of(y)
            found = frechet_distance(first, second)
            value, error = found.value, frechet_error(found, first, second, (x, y))
        else:
            value, error = jackknife(kernel_distance(x, y, 20))
        values.append(value)
        errors.append(error)
    # The spread of 60 values is known to 9 %; the seeds are fixed.
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


def test_golden_kid(golden):
    count = min(len(golden["real"]), len(golden["fake"]))
    found = kernel_distance(golden["fake"][:count], golden["real"][:count])
    assert float(found[0]) == pytest.approx(float(golden["kid_first_m"]), rel=1e-9)


def test_kid_is_unbiased_for_equal_distributions():
    values = [float(kernel_distance(normal("x", 40, 3, seed=s), normal("y", 50, 3, seed=s))[0]) for s in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_leaving_out_a_group_is_as_if_it_had_not_been_there():
    x, y = normal("x", 50, 3), normal("y", 41, 3, shift=0.5)
    first, second = membership(50, 5), membership(41, 5)
    kid = kernel_distance(x, y, 5)
    near = manifold(x, y, 3, inclusive=False, groups=5)
    for group in range(5):
        a, b = x[first != group], y[second != group]
        assert float(kid[1 + group]) == pytest.approx(float(kernel_distance(a, b)[0]), rel=1e-10)
        without = manifold(a, b, 3, inclusive=False)
        for name in PRDC:
            assert getattr(near, name)[1 + group] == getattr(without, name)[0]


def test_jackknife_of_a_mean_is_its_standard_error():
    groups = torch.tensor([1.0, 2.0, 4.0, 7.0]).double()
    leaves = (groups.sum() - groups) / 3
    value, error = jackknife(torch.cat([groups.mean()[None], leaves]))
    assert value == 3.5
    assert error == pytest.approx(float(groups.std() / 2))
    assert jackknife(torch.ones(1)) == (1.0, None)


def test_groups_need_samples():
    assert groups_for(1000, 500) == 20
    assert groups_for(1000, 9) == 4
    assert groups_for(1000, 3) == 0
    assert torch.bincount(membership(43, 20)).min() >= 2


@pytest.mark.parametrize("k", [3, 5])
def test_golden_prdc(golden, k):
    found = manifold(golden["real"], golden["fake"], k, inclusive=False)
    for name in PRDC:
        assert float(getattr(found, name)[0]) == pytest.approx(float(golden[f"prdc_k{k}_{name}"]), rel=1e-12)


@pytest.mark.parametrize("dims", [2, 100])
def test_a_set_covers_itself(dims):
    x = normal("x", 60, dims)
    found = manifold(x, x, 5, inclusive=False)
    assert [float(getattr(found, name)[0]) for name in ("precision", "recall", "coverage")] == [1.0, 1.0, 1.0]
    # A ball holds its own sample and, by `<`, the k - 1 nearest others.
    assert float(found.density[0]) == pytest.approx(1)
    assert float(manifold(x, x, 5, inclusive=True).density[0]) == pytest.approx(6 / 5)


def test_the_surface_of_a_ball_is_part_of_it_by_the_inclusive_convention_only():
    real, fake = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert float(manifold(real, fake, 1, inclusive=True).precision[0]) == 0.5
    assert float(manifold(real, fake, 1, inclusive=False).precision[0]) == 0.0


def test_far_sets_do_not_cover_each_other():
    found = manifold(normal("x", 30, 3), normal("y", 30, 3, shift=100), 5, inclusive=True)
    assert [float(getattr(found, name)[0]) for name in PRDC] == [0.0, 0.0, 0.0, 0.0]


def test_neighbours_must_be_there():
    with pytest.raises(DataError, match="5 nearest neighbours in sets of 30 and 5"):
        manifold(torch.zeros(30, 2), torch.zeros(5, 2), 5, inclusive=False)
    with pytest.raises(DataError, match="1 and 2 samples"):
        kernel_distance(torch.zeros(1, 2), torch.zeros(2, 2))


def test_distances_from_products_are_those_from_differences(monkeypatch):
    x, y = normal("x", 30, 50, shift=100), normal("y", 20, 50, shift=100)
    y[3] = x[4]
    monkeypatch.setattr("evaluation.images.neighbours.ROWS", 8)
    found = torch.cat([block for _, block in distances(x, y)])
    torch.testing.assert_close(found, (x[:, None] - y).norm(dim=2), rtol=1e-10, atol=1e-10)
    assert found[4, 3] == 0


def test_golden_inception_score_and_i_variance(golden):
    probabilities = golden["probs"]
    statistics = ClassStatistics.of(probabilities, contiguous_splits(len(probabilities), 10), 10)
    score, spread = inception_score(statistics), i_variance(statistics)
    assert score.mean == pytest.approx(float(golden["is_mean"]), rel=1e-9)
    assert score.population_std == pytest.approx(float(golden["is_std_pop"]), rel=1e-9)
    assert score.sample_std == pytest.approx(float(golden["is_std_sample"]), rel=1e-9)
    assert spread.mean == pytest.approx(float(golden["ivar_mean"]), rel=1e-9)
    assert spread.population_std == pytest.approx(float(golden["ivar_std"]), rel=1e-9)


def test_inception_score_of_certain_classes_is_their_number():
    certain = torch.eye(5).repeat(8, 1)
    score = inception_score(ClassStatistics.of(certain, contiguous_splits(40, 2), 2))
    assert score.mean == pytest.approx(5)
    assert score.stderr == pytest.approx(0, abs=1e-12)
    unsure = inception_score(ClassStatistics.of(torch.full((40, 5), 0.2), contiguous_splits(40, 1), 1))
    assert unsure.mean == pytest.approx(1)
    assert unsure.stderr is None


def test_golden_prd():
    for case in json.loads((GOLDEN / "prd_a.json").read_text()):
        histograms = (torch.tensor(case[name], dtype=torch.float64) for name in ("ref_hist", "eval_hist"))
        precision, recall = prd_curve(*histograms)
        assert float(best_f(precision, recall, 8.0)) == pytest.approx(case["F8_recall"], rel=1e-9)
        assert float(best_f(precision, recall, 1 / 8)) == pytest.approx(case["F1_8_precision"], rel=1e-9)
        assert float(precision.max()) == pytest.approx(case["max_precision"], rel=1e-9)
        assert float(recall.max()) == pytest.approx(case["max_recall"], rel=1e-9)


def test_prd_tells_lost_modes_from_invented_ones():
    pytest.importorskip("sklearn")
    centres = torch.eye(4).double() * 20
    real = normal("x", 200, 4) + centres[torch.arange(200) % 4]
    some = normal("y", 200, 4) + centres[torch.arange(200) % 2]
    f8, f1_8 = prd_scores(real, some, bins=4, runs=2, groups=10)
    assert f1_8[0] > 0.95
    assert f8[0] == pytest.approx(0.5, abs=0.05)
    back8, back1_8 = prd_scores(some, real, bins=4, runs=2)
    assert (float(back1_8), float(back8)) == pytest.approx((float(f8[0]), float(f1_8[0])), abs=0.05)
    assert jackknife(f8)[1] < 0.05
    with pytest.raises(DataError, match="3 samples of each set in 20 clusters"):
        prd_scores(real[:3], some)
