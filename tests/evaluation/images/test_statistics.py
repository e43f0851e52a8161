import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.image import (
    Extracted,
    ImageStatistics,
    KeepSettings,
    PixelExtractor,
    in_batches,
    merge_parts,
    score_part,
)
from evaluation.images.classes import ClassStatistics
from evaluation.images.moments import Moments
from evaluation.images.reservoir import Reservoir
from generative.errors import DataError
from generative.randomness import Streams

EXACT = {"rtol": 1e-10, "atol": 1e-10}


class WithClasses:
    """Pixels as features, and the softmax of the first ones as probabilities."""

    description, fingerprint = "test", "0"

    def __call__(self, images):
        pixels = images.flatten(1)
        return Extracted(pixels, (3 * pixels[:, :4].double()).softmax(1))


def images(count=120):
    return Streams(0).normal("images", torch.arange(count), (1, 3, 2))


def test_moments_are_numpys():
    features = images().flatten(1) + 1000  # far from zero: where sums of squares would lose digits
    found = Moments.of(features[:7]).merge(Moments.of(features[7:100])).merge(Moments.of(features[100:]))
    assert found.count == 120
    np.testing.assert_allclose(found.mean, features.double().mean(0), **EXACT)
    np.testing.assert_allclose(found.covariance, np.cov(features.double().numpy().T), **EXACT)


def test_one_sample_has_no_covariance():
    with pytest.raises(DataError, match="not defined"):
        _ = Moments.of(torch.ones(1, 3)).covariance


three_parts = st.tuples(
    *[st.integers(1, 6).flatmap(lambda n: arrays.arrays(np.float64, (n, 3), elements=st.floats(-100, 100)))] * 3
)


@given(three_parts)
@settings(max_examples=50, deadline=None)
def test_merging_moments_is_associative_and_commutative(parts):
    a, b, c = (Moments.of(torch.from_numpy(part)) for part in parts)
    whole = Moments.of(torch.from_numpy(np.concatenate(parts)))
    for found in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert found.count == whole.count
        torch.testing.assert_close(found.mean, whole.mean, **EXACT)
        torch.testing.assert_close(found.scatter, whole.scatter, rtol=1e-10, atol=1e-8)


@given(st.lists(st.integers(0, 2**62 - 1), unique=True, min_size=3, max_size=40), st.integers(1, 10), st.data())
@settings(max_examples=50, deadline=None)
def test_a_reservoir_keeps_the_same_samples_however_they_are_sharded(ids, size, data):
    ids = torch.tensor(ids)
    features = ids[:, None].double()
    whole = Reservoir.of(features, ids, size)
    shard = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids))))
    order = data.draw(st.permutations(range(3)))
    parts = [Reservoir.of(features[shard == s], ids[shard == s], size) for s in order]
    for found in (parts[0].merge(parts[1]).merge(parts[2]), parts[0].merge(parts[1].merge(parts[2]))):
        assert torch.equal(found.ids, whole.ids)
        assert torch.equal(found.features, whole.features)
    assert len(whole.ids) == min(size, len(ids))


def test_a_reservoir_is_a_random_sample():
    ids = torch.arange(20_000)
    kept = Reservoir.of(ids[:, None], ids, 2000).ids.double()
    # Mean and spread of a uniform sample, to four standard errors; rows too are in random order.
    assert abs(kept.mean() - 10_000) < 4 * 5774 / 2000**0.5
    assert abs(kept[:1000].mean() - 10_000) < 4 * 5774 / 1000**0.5
    assert not torch.equal(kept, Reservoir.of(ids[:, None], ids, 2000, seed=1).ids.double())


def test_samples_are_counted_once():
    part = score_part(in_batches(images(8)), PixelExtractor())
    with pytest.raises(DataError, match="comes twice"):
        part.merge(part)
    with pytest.raises(DataError, match="from -1"):
        score_part(in_batches(images(8), first_id=-1), PixelExtractor())


def test_class_statistics_merge_with_empty_splits():
    probabilities = torch.softmax(images(30).flatten(1), 1)
    split = torch.arange(30) % 3
    whole = ClassStatistics.of(probabilities, split, 4)
    parts = [ClassStatistics.of(probabilities[split == s], split[split == s], 4) for s in (2, 0, 1)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    for name, tensor in whole.tensors().items():
        torch.testing.assert_close(merged.tensors()[name], tensor, **EXACT)


def assert_alike(a, b):
    for name, tensor in b.tensors().items():
        torch.testing.assert_close(a.tensors()[name], tensor, **EXACT)


@pytest.mark.parametrize("size", [1, 7, 120])
def test_statistics_do_not_depend_on_batch_and_shard(size):
    keep = KeepSettings(reservoir=50, splits=3)
    whole = score_part(in_batches(images(), 120), WithClasses(), keep)
    batches = list(in_batches(images(), size))
    parts = [score_part(batches[i::3], WithClasses(), keep) for i in range(3) if batches[i::3]]
    assert_alike(merge_parts(reversed(parts)), whole)


def test_chunks_are_folded(monkeypatch):
    whole = score_part(in_batches(images(), 120), WithClasses())
    monkeypatch.setattr("evaluation.images.statistics.CHUNK", 16)
    told = []
    assert_alike(score_part(in_batches(images(), 5), WithClasses(), progress=told.append), whole)
    assert told == [20, 40, 60, 80, 100, 120]


def test_statistics_travel_as_tensors():
    part = score_part(in_batches(images()), WithClasses(), KeepSettings(reservoir=50))
    back = ImageStatistics.from_tensors(part.tensors())
    assert (back.count, back.extractor, back.fingerprint) == (120, "test", "0")
    assert_alike(back, part)
    bare = score_part(in_batches(images()), PixelExtractor(), KeepSettings(covariance=False))
    back = ImageStatistics.from_tensors(bare.tensors())
    assert back.moments is None
    assert back.classes is None


def test_parts_of_other_extractors_or_settings_are_refused():
    part = score_part(in_batches(images(8)), PixelExtractor())
    for other in (
        score_part(in_batches(images(8), first_id=8), WithClasses()),
        score_part(in_batches(images(8), first_id=8), PixelExtractor(), KeepSettings(reservoir=9)),
    ):
        with pytest.raises(DataError, match="one extractor with one setting"):
            part.merge(other)


def test_bad_batches_are_refused():
    with pytest.raises(DataError, match="no images"):
        score_part([], PixelExtractor())
    with pytest.raises(DataError, match="no parts"):
        merge_parts([])
    with pytest.raises(DataError, match="2 images with 3 ids"):
        score_part([(images(2), torch.arange(3))], PixelExtractor())
    broken = images(2)
    broken[1, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r"image 5 are not finite \(1 such"):
        score_part([(broken, torch.tensor([4, 5]))], PixelExtractor())
    with pytest.raises(DataError, match="covariance does not fit"):
        score_part([(torch.zeros(2, 3, 64, 64), torch.arange(2))], PixelExtractor())
