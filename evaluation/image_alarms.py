"""From where on a generator's samples raise an alarm: the levels that `image_monitor` judges by and reports draw."""

from __future__ import annotations

import math

NEAR = 0.05
"""Samples are nearly equal where they are no farther apart than this quantile of nearest distances in training data."""

SIGNIFICANT = 4.0
"""An alarm needs a share that lies so many standard errors beyond what equal distributions give ..."""

LEAST_SHARE = 0.1
"""... and near-duplicates or copies of at least this share."""

FEWEST_FOR_SHARES = 200
"""With fewer samples the distance that is near is too uncertain, and only coverage raises an alarm."""

LEAST_COVERAGE = 0.5
"""Collapse: coverage below this part of what equal distributions give."""


def share_error(share: float, count: int) -> float:
    """Binomial standard error of a share."""
    return math.sqrt(share * (1 - share) / count)


def share_limit(samples: int) -> float:
    """Share of near-duplicates, or of copies, that is an alarm among so many samples.

    Near pairs count both their samples, and the distance that is near is an estimate too: the variance is taken as four
    times the binomial one.
    """
    return max(LEAST_SHARE, NEAR + 2 * SIGNIFICANT * share_error(NEAR, samples))
