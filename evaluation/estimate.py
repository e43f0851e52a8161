"""Numbers that carry their uncertainty: value, standard error, count, unit and how they were measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bound = Literal["upper", "lower"]

NO_ERROR = "no error known"
"""Stands where others have their error: no number is shown as if it were certain."""


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Args:
        value: the number.
        stderr: its standard error (one sigma); None where one observation cannot tell.
        n: independent observations behind it.
        unit: of value and stderr.
        protocol: what it was measured on and how, in one line.
        bound: whether it bounds the quantity that it stands for from above or below; None for an unbiased figure.
    """

    value: float
    stderr: float | None
    n: int
    unit: str = ""
    protocol: str = ""
    bound: Bound | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, [format_value(self.value, self.stderr), self.unit]))

    def scaled(self, factor: float, unit: str) -> Estimate:
        """The same figure in another unit: nats to bits, tokens to bytes. `factor` must be positive."""
        stderr = None if self.stderr is None else self.stderr * factor
        return replace(self, value=self.value * factor, stderr=stderr, unit=unit)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values; a number that is not finite becomes null."""
        stderr = None if self.stderr is None else _finite(self.stderr)
        return {
            "value": _finite(self.value),
            "stderr": stderr,
            "n": self.n,
            "unit": self.unit,
            "protocol": self.protocol,
            "bound": self.bound,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Estimate:
        """Read what `to_json` wrote; only `value` must be there, and a null one is NaN.

        Raises:
            ValueError: an entry is of the wrong type.
        """
        bound = data.get("bound")
        try:
            return Estimate(
                value=math.nan if data["value"] is None else float(data["value"]),
                stderr=None if data.get("stderr") is None else float(data["stderr"]),
                n=0 if data.get("n") is None else int(data["n"]),
                unit=str(data.get("unit") or ""),
                protocol=str(data.get("protocol") or ""),
                bound=bound if bound in ("upper", "lower") else None,
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not an estimate: {data!r}") from error


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def format_value(value: float, stderr: float | None) -> str:
    """'3.27 ± 0.02': the error with one digit (two where the first is 1), the value to the same place."""
    if not math.isfinite(value):
        return "not finite"
    if stderr is None or not math.isfinite(stderr):
        return f"{value:.4g} ({NO_ERROR})"
    if stderr <= 0:
        return f"{value:.4g} ± 0"
    first, _, exponent = f"{stderr:.0e}".partition("e")
    places = (first == "1") - int(exponent)
    digits = max(places, 0)
    return f"{round(value, places):,.{digits}f} ± {round(stderr, places):,.{digits}f}"


def unanimous_error(count: int) -> float:
    """Error of a share that is 0 or 1 in so many observations, of which samples of it would say 0.

    The deviation of the share given what was seen (and nothing known before): that of Beta(count + 1, 1), about
    1 / count.
    """
    return math.sqrt((count + 1) / (count + 3)) / (count + 2)


def mean_estimate(values: ArrayLike, unit: str = "", protocol: str = "", bound: Bound | None = None) -> Estimate:
    """Mean of independent observations, standard error = sample standard deviation / sqrt(n).

    Raises:
        ValueError: there are no values.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if not x.size:
        raise ValueError("the mean of no values is not defined")
    stderr = float(x.std(ddof=1) / math.sqrt(x.size)) if x.size > 1 else None
    return Estimate(float(x.mean()), stderr, int(x.size), unit, protocol, bound)


@dataclass(frozen=True)
class Ratio:
    """A ratio, median or fitted number with its bootstrap interval; `low`, `high`: percentiles of resampled ones."""

    estimate: Estimate
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Reduces the last axis: [resamples, n] -> [resamples]."""


def ratio_of_medians(a: Sequence[float] | ArrayLike, b: Sequence[float] | ArrayLike, level: float = 0.95) -> Ratio:
    """median(a) / median(b) of interleaved timings, with its bootstrap interval (see `bootstrap_ratio`)."""
    return bootstrap_ratio(a, b, lambda x: np.median(x, axis=-1), level=level)


def bootstrap_ratio(
    a: Sequence[float] | ArrayLike,
    b: Sequence[float] | ArrayLike,
    statistic: Statistic,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    protocol: str = "",
) -> Ratio:
    """statistic(a) / statistic(b) for observations taken in pairs, a[i] next to b[i] in time.

    Pairs are drawn together, so that a drift of the machine cancels, and in circular blocks of about n^(1/3), since
    neighbouring timings are alike and single draws would make the interval too narrow (circular block bootstrap,
    Politis and Romano 1992). The seed is fixed: the same numbers give the same interval.

    Raises:
        ValueError: fewer than two pairs, unequal lengths, or a level outside (0, 1).
    """
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (a, b))
    if x.size != y.size or x.size < 2:
        raise ValueError(f"need two or more pairs, got {x.size} and {y.size} values")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1")
    rows = _block_indices(x.size, resamples, seed)
    value = float(statistic(x[None])[0] / statistic(y[None])[0])
    note = protocol or f"{x.size} interleaved pairs, {100 * level:g} % block bootstrap interval"
    return from_draws(value, statistic(x[rows]) / statistic(y[rows]), x.size, "", note, level)


def bootstrap_median(
    values: Sequence[float] | ArrayLike, unit: str = "", protocol: str = "", resamples: int = 2000, seed: int = 0
) -> Ratio:
    """Median of repeats taken one after the other, with its 95 % interval (blocks as in `bootstrap_ratio`).

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size < 2:
        raise ValueError(f"need two or more values, got {x.size}")
    draws = np.median(x[_block_indices(x.size, resamples, seed)], axis=-1)
    note = "; ".join(filter(None, [protocol, f"median of {x.size}, 95 % block bootstrap interval"]))
    return from_draws(float(np.median(x)), draws, x.size, unit, note, 0.95)


def from_draws(
    value: float, draws: NDArray[np.float64], n: int, unit: str = "", protocol: str = "", level: float = 0.95
) -> Ratio:
    """A statistic of `n` observations with the spread and the percentiles of its resampled values."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Ratio(Estimate(value, float(draws.std(ddof=1)), n, unit, protocol), float(low), float(high))


def _block_indices(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Indices of resamples made of circular blocks, int64[resamples, n]."""
    length = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, size=(resamples, math.ceil(n / length), 1))
    return ((starts + np.arange(length)) % n).reshape(resamples, -1)[:, :n]
