"""Watching a generator for collapse and copying while it trains: pure functions of features.

All distances are Euclidean between features of one extractor. As many training samples as generated ones are compared,
so that what equal distributions would give is known and alarms need no tuned numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.image_alarms import FEWEST_FOR_SHARES, LEAST_COVERAGE, NEAR, SIGNIFICANT, share_error, share_limit
from evaluation.images.neighbours import distances, kth_distance, nearest_by_group
from generative.errors import DataError


@dataclass(frozen=True)
class Neighbourhood:
    """Where generated samples lie, among one another and among training samples.

    Args:
        samples: generated and training samples that were compared, each.
        k: neighbours of `coverage`.
        to_training: median distance of a generated sample to the nearest training sample.
        among_generated: median distance of a generated sample to the nearest other generated one.
        among_training: the same among training samples: what the two above are to be held against.
        near_duplicates: share of generated samples as close to another as the closest 5 % of training samples are.
        near_copies: share of generated samples as close to a training sample.
        coverage: share of training samples whose k nearest ones are farther away than the nearest generated one.
        nearest: index of the training sample nearest to each generated one, int64[N]: for grids of neighbours.
    """

    samples: int
    k: int
    to_training: float
    among_generated: float
    among_training: float
    near_duplicates: float
    near_copies: float
    coverage: float
    nearest: Tensor

    @property
    def expected_coverage(self) -> float:
        """Coverage that equal distributions give: 1 - prod_{i=1..k} (N - i) / (2N - i) (Naeem et al. 2020)."""
        n = self.samples
        return 1 - math.prod((n - i) / (2 * n - i) for i in range(1, self.k + 1))

    def metrics(self) -> dict[str, float]:
        """The figures by name, for the metrics of a run."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


def neighbourhood(generated: Tensor, training: Tensor, k: int = 5) -> Neighbourhood:
    """Compare generated with training features, as many rows of each (the first ones of the larger set).

    Args:
        generated, training: features [N, D] and [M, D] in random order.
        k: neighbours of the coverage.

    Raises:
        DataError: not more samples than neighbours, or features that are not finite.
    """
    count = min(len(generated), len(training))
    if not 1 <= k < count:
        raise DataError(
            f"{k} nearest neighbours among {count} samples",
            expected=f"1 to {max(count - 1, 1)} neighbours",
            remedy="monitor more samples, or fewer neighbours",
        )
    fake, real = generated[:count], training[:count]
    if not (fake.isfinite().all() and real.isfinite().all()):
        raise DataError(
            "features to monitor are not finite",
            expected="finite features",
            remedy="the generator may have diverged: look at its samples",
        )
    among_real = nearest_by_group(real, real, [count], k, exclude_self=True)
    radii, own_real = kth_distance(among_real, k)[0], kth_distance(among_real, 1)[0]
    own_fake = nearest_by_group(fake, fake, [count], 1, exclude_self=True)[:, 0, 0]
    to_fake = nearest_by_group(real, fake, [count], 1, exclude_self=False)[:, 0, 0]
    to_real, nearest = _nearest(fake, real)
    near = own_real.quantile(NEAR)
    return Neighbourhood(
        samples=count,
        k=k,
        to_training=float(to_real.median()),
        among_generated=float(own_fake.median()),
        among_training=float(own_real.median()),
        near_duplicates=float((own_fake <= near).double().mean()),
        near_copies=float((to_real <= near).double().mean()),
        coverage=float((to_fake < radii).double().mean()),
        nearest=nearest,
    )


def alarms(found: Neighbourhood) -> list[str]:
    """What is wrong, one line each, by fixed rules; an empty list where nothing is.

    1. Collapse: coverage is under half of what equal distributions give, by four standard errors.
    2. Near-duplicates: at least 10 % of the generated samples, and four standard errors more than the 5 % of training
       (`share_limit`); from 200 samples on.
    3. Copies: the same of generated samples near a training sample.

    Args:
        found: of the samples at hand.
    """
    told = []
    wanted = LEAST_COVERAGE * found.expected_coverage
    if found.coverage + SIGNIFICANT * share_error(found.coverage, found.samples) < wanted:
        told.append(
            f"mode coverage {found.coverage:.3f} of {found.samples:,} samples, under {wanted:.3f} "
            f"(half of what equal distributions give): the generator leaves out part of the data"
        )
    if found.samples < FEWEST_FOR_SHARES:
        return told
    shares = {"another generated sample": found.near_duplicates, "a training sample": found.near_copies}
    limit = share_limit(found.samples)
    for what, share in shares.items():
        if share >= limit:
            told.append(
                f"{100 * share:.1f} % of {found.samples:,} samples are nearly equal to {what} "
                f"(limit {100 * limit:.1f} %; {100 * NEAR:.0f} % among training samples)"
            )
    return told


def _nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to, and index of, the nearest point of each query."""
    parts = [block.min(1) for _, block in distances(queries, points)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
