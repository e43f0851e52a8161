"""Evaluation of image generators: FID, KID, IS, precision and recall, density and coverage, PRD, I-Variance.

    figures = evaluate_images(generated, reference, extractor)
    print(figures["fid"], figures["fid"].protocol)

Images stream through an extractor; what is kept of them merges (`score_part`, `merge_parts`), so that parts may be
scored by any number of workers. docs/image_metrics.md tells what each figure is and with what it compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.estimate import Estimate, unanimous_error
from evaluation.images.classes import OverSplits, i_variance, inception_score
from evaluation.images.extractors import Extracted, FeatureExtractor, PixelExtractor
from evaluation.images.frechet import frechet_distance, frechet_error
from evaluation.images.jackknife import groups_for, jackknife
from evaluation.images.kernel import kernel_distance
from evaluation.images.manifold import manifold
from evaluation.images.prd import prd_scores
from evaluation.images.statistics import ImageBatch, ImageStatistics, KeepSettings, merge_parts, score_part
from generative.errors import ConfigError, DataError, suggestion

__all__ = [
    "METRICS",
    "Extracted",
    "FeatureExtractor",
    "ImageBatch",
    "ImageStatistics",
    "KeepSettings",
    "MetricSettings",
    "PixelExtractor",
    "compare",
    "evaluate_images",
    "fewest_samples",
    "in_batches",
    "merge_parts",
    "score_part",
]


@dataclass(frozen=True)
class MetricSettings:
    """Conventions of the metrics; the defaults are those of most publications.

    Args:
        neighbours: k of precision, recall, density and coverage (PRDC, `<`).
        improved_neighbours: k of improved precision and recall (Kynkaanniemi, `<=`).
        bins: clusters of PRD.
        runs: clusterings of PRD that are averaged.
    """

    neighbours: int = 5
    improved_neighbours: int = 3
    bins: int = 20
    runs: int = 10


Figures = dict[str, Estimate]
Metric = Callable[[ImageStatistics, ImageStatistics, MetricSettings], Figures]


def evaluate_images(
    generated: Iterable[ImageBatch],
    reference: Iterable[ImageBatch] | ImageStatistics,
    extractor: FeatureExtractor,
    metrics: Sequence[str] | None = None,
    *,
    settings: MetricSettings | None = None,
    keep: KeepSettings | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Figures:
    """Figures of generated images against reference images.

    Args:
        generated: batches of images float32[B, C, H, W] in [-1, 1] with their ids (`in_batches` cuts a tensor).
        reference: the same of real images, or their statistics where they were scored before.
        extractor: features of images.
        metrics: names in `METRICS`; None takes all that the extractor allows.
        settings: conventions of the metrics.
        keep: what is kept of the images.
        progress: told how many generated images are done.

    Raises:
        ConfigError: an unknown metric, or one that the extractor cannot serve.
        DataError: images that cannot be used, or too few of them.
    """
    check_metrics(metrics)
    real = reference if isinstance(reference, ImageStatistics) else score_part(reference, extractor, keep)
    return compare(score_part(generated, extractor, keep, progress), real, metrics, settings)


def compare(
    generated: ImageStatistics,
    reference: ImageStatistics,
    metrics: Sequence[str] | None = None,
    settings: MetricSettings | None = None,
) -> Figures:
    """Figures from the statistics of both sets; raises as `evaluate_images` does."""
    if generated.fingerprint != reference.fingerprint:
        raise DataError(
            f"generated images scored by {generated.extractor}, reference images by {reference.extractor}",
            expected="one extractor for both",
            remedy="score the reference images again",
        )
    check_metrics(metrics)
    chosen = metrics if metrics is not None else [name for name in METRICS if _served(name, generated, reference)]
    found: Figures = {}
    for name in chosen:
        if not _served(name, generated, reference):
            wanted = "class probabilities" if name in OF_CLASSES else "second moments (KeepSettings.covariance)"
            raise ConfigError(
                f"the metric {name} cannot be computed with {generated.extractor}",
                expected=wanted,
                remedy=f"leave {name} out of evaluate.metrics, or use another evaluate.extractor",
            )
        found |= METRICS[name](generated, reference, settings or MetricSettings())
    return found


def in_batches(images: Tensor, size: int = 256, first_id: int = 0) -> Iterable[ImageBatch]:
    """Cut images [N, C, H, W] into batches, numbered from `first_id`."""
    ids = torch.arange(first_id, first_id + len(images))
    return list(zip(torch.split(images, size), torch.split(ids, size), strict=True))


def check_metrics(metrics: Sequence[str] | None) -> None:
    """Raise ConfigError for a metric that is not there."""
    for name in metrics or ():
        if name not in METRICS:
            raise ConfigError(
                f"unknown metric {name!r}{suggestion(name, METRICS)}",
                expected=f"one of {', '.join(METRICS)}",
                remedy="correct evaluate.metrics",
            )


def fewest_samples(metrics: Sequence[str] | None, settings: MetricSettings | None = None) -> dict[str, int]:
    """Samples of each set that metrics need at least, those that need any; None: of all metrics."""
    chosen = settings or MetricSettings()
    needed = {
        "fid": 2,
        "kid": 2,
        "improved": chosen.improved_neighbours + 1,
        "prdc": chosen.neighbours + 1,
        "prd": chosen.bins,
    }
    return {name: count for name, count in needed.items() if metrics is None or name in metrics}


def _served(name: str, generated: ImageStatistics, reference: ImageStatistics) -> bool:
    if name in OF_CLASSES:
        return generated.classes is not None
    return name != "fid" or (generated.moments is not None and reference.moments is not None)


def _protocol(generated: ImageStatistics, reference: ImageStatistics | None, *notes: str) -> str:
    against = f" against {reference.count:,} reference" if reference else ""
    return "; ".join([f"{generated.count:,} generated{against} images, {generated.extractor}", *notes])


def _sampled(generated: ImageStatistics, reference: ImageStatistics) -> tuple[Tensor, Tensor, int, str]:
    """Features of both sets, groups for their jackknife, and what the protocol says of them."""
    first, second = generated.reservoir.features, reference.reservoir.features
    if (len(first), len(second)) == (generated.count, reference.count):
        note = "all features"
    else:
        note = f"features of {len(first):,} and {len(second):,} of them, picked by id"
    groups = groups_for(len(first), len(second))
    return first, second, groups, f"{note}; error by jackknife over {groups} groups" if groups else note


def _fid(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    if generated.moments is None or reference.moments is None:
        return {}
    first, second = generated.moments, reference.moments
    distance = frechet_distance(first, second)
    samples = generated.reservoir.features, reference.reservoir.features
    error = frechet_error(distance, first, second, samples)
    note = f"error by the delta method on {len(samples[0]):,} and {len(samples[1]):,} samples"
    bias = "biased upwards by about 1/N: compare at equal N only"
    return {
        "fid": Estimate(
            distance.value, error, generated.count, "", _protocol(generated, reference, note, bias), "upper"
        )
    }


def _kid(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    first, second, groups, note = _sampled(generated, reference)
    value, error = jackknife(kernel_distance(first, second, groups))
    protocol = _protocol(generated, reference, "unbiased, cubic kernel", note)
    return {"kid": Estimate(value, error, len(first), "", protocol)}


def _improved(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    k = settings.improved_neighbours
    return _manifold(generated, reference, k, {"precision": "improved_precision", "recall": "improved_recall"}, True)


def _prdc(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    names = {name: name for name in ("precision", "recall", "density", "coverage")}
    return _manifold(generated, reference, settings.neighbours, names, False)


def _manifold(
    generated: ImageStatistics, reference: ImageStatistics, k: int, names: Mapping[str, str], inclusive: bool
) -> Figures:
    first, second, groups, note = _sampled(generated, reference)
    found = manifold(second, first, k, inclusive=inclusive, groups=groups)
    protocol = _protocol(generated, reference, f"k={k}, {'≤' if inclusive else '<'}", note, "depends on N")
    figures = {}
    for field, name in names.items():
        value, error = jackknife(getattr(found, field))
        if error == 0 and field in SHARES and value in (0, 1):
            error = unanimous_error(min(len(first), len(second)))
        figures[name] = Estimate(value, error, len(first), "", protocol)
    return figures


def _prd(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    first, second, _, _ = _sampled(generated, reference)
    count = min(len(first), len(second))
    groups = groups_for(count)
    f8, f1_8 = prd_scores(second, first, bins=settings.bins, runs=settings.runs, groups=groups)
    note = f"{count:,} features of each, {settings.bins} joint clusters, mean curve of {settings.runs} clusterings"
    protocol = _protocol(generated, reference, note, f"error by jackknife over {groups} groups, clusters held fixed")
    return {name: Estimate(*jackknife(v), count, "", protocol) for name, v in (("f8", f8), ("f1_8", f1_8))}


def _over_splits(generated: ImageStatistics, name: str, found: OverSplits) -> Figures:
    splits = len(found.values)
    note = f"{splits} splits (by id), error = sample std over splits / sqrt({splits})"
    stds = f"std over splits {found.population_std:.4g} (population) or {found.sample_std:.4g} (sample)"
    return {name: Estimate(found.mean, found.stderr, generated.count, "", _protocol(generated, None, note, stds))}


def _inception_score(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    if generated.classes is None:
        return {}
    return _over_splits(generated, "inception_score", inception_score(generated.classes))


def _i_variance(generated: ImageStatistics, reference: ImageStatistics, settings: MetricSettings) -> Figures:
    if generated.classes is None:
        return {}
    return _over_splits(generated, "i_variance", i_variance(generated.classes))


METRICS: Mapping[str, Metric] = {
    "fid": _fid,
    "kid": _kid,
    "inception_score": _inception_score,
    "improved": _improved,
    "prdc": _prdc,
    "prd": _prd,
    "i_variance": _i_variance,
}
"""What can be asked for. `improved` gives improved_precision and improved_recall; `prdc` precision, recall, density and
coverage; `prd` f8 and f1_8; the others one figure of their name."""

SHARES = ("precision", "recall", "coverage")
"""Figures of a manifold that cannot leave 0 to 1."""

OF_CLASSES = ("inception_score", "i_variance")
"""Metrics of class probabilities."""
