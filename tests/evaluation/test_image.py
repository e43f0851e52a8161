import math

import pytest
import torch

from evaluation.image import (
    METRICS,
    Extracted,
    KeepSettings,
    MetricSettings,
    PixelExtractor,
    compare,
    evaluate_images,
    fewest_samples,
    in_batches,
    merge_parts,
    score_part,
)
from generative.errors import ConfigError, DataError
from generative.randomness import Streams

QUICK = MetricSettings(bins=3, runs=1)


class WithClasses:
    description, fingerprint = "toy features", "toy"

    def __call__(self, images):
        pixels = images.flatten(1)
        return Extracted(pixels, (3 * pixels[:, :4].double()).softmax(1))


def images(name, count, shift=0.0):
    return shift + Streams(0).normal(name, torch.arange(count), (1, 3, 2))


def test_all_figures_come_with_error_count_and_protocol():
    pytest.importorskip("sklearn")
    found = evaluate_images(in_batches(images("a", 80)), in_batches(images("b", 100)), WithClasses(), settings=QUICK)
    names = "fid kid inception_score improved_precision improved_recall precision recall density coverage"
    assert list(found) == [*names.split(), "f8", "f1_8", "i_variance"]
    for estimate in found.values():
        assert math.isfinite(estimate.value)
        assert estimate.stderr is not None
        assert math.isfinite(estimate.stderr)
        assert estimate.n == 80
        assert estimate.protocol.startswith("80 generated")
        assert "toy features" in estimate.protocol
        assert "error" in estimate.protocol
    assert "against 100 reference" in found["fid"].protocol
    assert "compare at equal N" in found["fid"].protocol
    assert found["fid"].bound == "upper"
    assert "k=5, <" in found["precision"].protocol
    assert "k=3, ≤" in found["improved_precision"].protocol


def test_a_share_of_all_images_is_not_certain():
    found = evaluate_images(in_batches(images("a", 80)), in_batches(images("a", 80)), WithClasses(), ["prdc"])
    for name in ("precision", "recall", "coverage"):
        assert found[name].value == 1
        assert found[name].stderr == pytest.approx(1 / 82, rel=0.02)


def test_figures_tell_equal_from_unequal():
    reference = score_part(in_batches(images("b", 200)), PixelExtractor())
    good, bad = (
        compare(score_part(in_batches(images("a", 200, shift)), PixelExtractor()), reference, ["fid", "kid", "prdc"])
        for shift in (0.0, 2.0)
    )
    assert bad["fid"].value == pytest.approx(24, abs=4 * bad["fid"].stderr)
    assert good["fid"].value < 0.5
    assert abs(good["kid"].value) < 4 * good["kid"].stderr < bad["kid"].value
    assert good["coverage"].value > 0.9 > 0.2 > bad["coverage"].value


def test_figures_do_not_depend_on_batch_and_shards():
    reference = score_part(in_batches(images("b", 90)), WithClasses())
    names = [name for name in METRICS if name != "prd"]
    whole = compare(score_part(in_batches(images("a", 90), 90), WithClasses()), reference, names)
    batches = list(in_batches(images("a", 90), 7))
    parts = [score_part(batches[i::4], WithClasses()) for i in (2, 0, 3, 1)]
    sharded = compare(merge_parts(parts), reference, names)
    for name, estimate in whole.items():
        assert sharded[name].value == pytest.approx(estimate.value, rel=1e-9, abs=1e-12)
        assert sharded[name].stderr == pytest.approx(estimate.stderr, rel=1e-6)
        # standard deviations in the protocol of IS are rounded
        assert sharded[name].protocol == estimate.protocol


def test_a_reservoir_stands_in_the_protocol():
    keep = KeepSettings(reservoir=50)
    found = evaluate_images(
        in_batches(images("a", 80)), in_batches(images("b", 90)), PixelExtractor(), ["fid", "kid"], keep=keep
    )
    assert found["kid"].n == 50
    assert "features of 50 and 50 of them" in found["kid"].protocol
    assert found["fid"].n == 80


def test_metrics_that_an_extractor_cannot_serve():
    one, two = (score_part(in_batches(images(name, 30)), PixelExtractor()) for name in "ab")
    assert not {"inception_score", "i_variance"} & set(compare(one, two, settings=QUICK))
    with pytest.raises(ConfigError, match="inception_score cannot be computed with pixels"):
        compare(one, two, ["inception_score"])
    bare = score_part(in_batches(images("a", 30)), PixelExtractor(), KeepSettings(covariance=False))
    with pytest.raises(ConfigError, match="second moments"):
        compare(bare, bare, ["fid"])


def test_unknown_metrics_and_unlike_extractors_are_refused():
    batches = in_batches(images("a", 30))
    with pytest.raises(ConfigError, match=r"unknown metric 'fib'. Did you mean fid\?"):
        evaluate_images(batches, batches, PixelExtractor(), ["fib"])
    with pytest.raises(DataError, match="one extractor for both"):
        compare(score_part(batches, PixelExtractor()), score_part(batches, WithClasses()))


@pytest.mark.parametrize(("name", "fewest"), fewest_samples(None, QUICK).items())
def test_no_metric_is_defined_for_fewer_samples_than_it_says(name, fewest):
    if name == "prd":
        pytest.importorskip("sklearn")
    real = score_part(in_batches(images("b", 50)), PixelExtractor())

    def figures(count):
        return compare(score_part(in_batches(images("a", count)), PixelExtractor()), real, [name], QUICK)

    assert figures(fewest)
    with pytest.raises(DataError):
        figures(fewest - 1)
