"""Classical enhancement that a learned model has to beat: spectral subtraction and the decision-directed Wiener filter.

Both know the noise from the utterance itself: its power at each frequency is a low quantile of |Y|^2 over time. So that
they are no straw men, their parameters are chosen on a validation part (`choose`) and told with the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from evaluation.speech_scores import si_sdr
from generative.errors import DataError

WINDOW = 0.032
"""Seconds of the Hann window; a quarter of it is the hop."""
_MEMORY = 0.98
"""Weight of the frame before in the decision-directed estimate (Ephraim and Malah 1984)."""
_TINY = 1e-12
"""Power under which there is nothing to divide by; signals are scaled to a peak of 1 before."""


@dataclass(frozen=True)
class SpectralSubtraction:
    """|S|^2 = max(|Y|^2 - over N, floor |Y|^2) with the phase of Y (Berouti et al. 1979).

    Args:
        quantile: q of the noise power N (see `noise_power`), in (0, 1).
        over: factor of over-subtraction, 1 or more.
        floor: what is left of |Y|^2 at least, in (0, 1).
    """

    quantile: float = 0.25
    over: float = 1.0
    floor: float = 0.05

    def gain(self, power: Tensor) -> Tensor:
        """Factor [F, K] on Y for |Y|^2 [F, K]."""
        kept = power - self.over * noise_power(power, self.quantile)[:, None]
        return (torch.maximum(kept, self.floor * power) / power.clamp_min(_TINY)).sqrt()


@dataclass(frozen=True)
class Wiener:
    """Gain xi / (1 + xi) with the decision-directed a priori SNR xi (Ephraim and Malah 1984).

    With gamma = |Y|^2 / N: xi_k = 0.98 |S_(k-1)|^2 / N + 0.02 max(gamma_k - 1, 0), at least the floor; |S|^2 / N before
    the first frame is 1, as they set it.

    Args:
        quantile: q of the noise power N (see `noise_power`), in (0, 1).
        floor_db: smallest xi in dB.
    """

    quantile: float = 0.25
    floor_db: float = -25.0

    def gain(self, power: Tensor) -> Tensor:
        """Factor [F, K] on Y for |Y|^2 [F, K]."""
        posterior = power / noise_power(power, self.quantile)[:, None].clamp_min(_TINY)
        fresh = (1 - _MEMORY) * (posterior - 1).clamp_min(0)
        floor, before = 10 ** (self.floor_db / 10), torch.ones_like(power[:, 0])
        gains = torch.empty_like(power)
        for frame in range(power.shape[1]):
            prior = (_MEMORY * before + fresh[:, frame]).clamp_min(floor)
            gains[:, frame] = prior / (1 + prior)
            before = gains[:, frame].square() * posterior[:, frame]
        return gains


Baseline = SpectralSubtraction | Wiener

GRIDS: Mapping[str, Sequence[Baseline]] = {
    "spectral_subtraction": [
        SpectralSubtraction(*settings) for settings in product((0.1, 0.25, 0.5), (1.0, 2.0), (0.01, 0.05, 0.1))
    ],
    "wiener": [Wiener(*settings) for settings in product((0.1, 0.25, 0.5), (-25.0, -15.0))],
}
"""What `choose` chooses among."""


def noise_power(power: Tensor, quantile: float) -> Tensor:
    """Noise power [F] of |Y|^2 [F, K]: its q-quantile over time / -ln(1 - q).

    In noise alone |Y|^2 is exponentially distributed, whose q-quantile is -ln(1 - q) times its mean.
    """
    return power.quantile(quantile, dim=1) / -math.log1p(-quantile)


def enhance(noisy: np.ndarray, rate: int, baseline: Baseline) -> np.ndarray:
    """The enhanced signal float64[T] of a noisy one [T] at `rate` Hz.

    Raises:
        DataError: less than two windows of sound, or values that are not finite.
    """
    size = 4 * round(WINDOW * rate / 4)
    signal = torch.from_numpy(np.asarray(noisy, dtype=np.float64))
    if signal.ndim != 1 or len(signal) < 2 * size or not signal.isfinite().all():
        raise DataError(
            f"a signal of shape {list(signal.shape)}" + ("" if signal.isfinite().all() else " that is not finite"),
            expected=f"[T] with T at least {2 * size} ({2 * WINDOW:g} s)",
            remedy="leave the file out",
        )
    peak = signal.abs().max().clamp_min(_TINY)
    window = torch.hann_window(size, dtype=torch.float64)
    spectrum = torch.stft(signal / peak, size, size // 4, window=window, return_complex=True)
    filtered = spectrum * baseline.gain(spectrum.abs().square())
    found: np.ndarray = (peak * torch.istft(filtered, size, size // 4, window=window, length=len(signal))).numpy()
    return found


@dataclass(frozen=True)
class Choice:
    """The best of a grid on a validation part.

    Args:
        baseline: the best.
        value: its mean score.
        tried: mean score of each, in the order of the grid.
        files: number of validation files.
    """

    baseline: Baseline
    value: float
    tried: Sequence[tuple[Baseline, float]]
    files: int

    def __str__(self) -> str:
        return f"{self.baseline} ({self.value:.2f} on {self.files} validation files, best of {len(self.tried)})"


Score = Callable[[np.ndarray, np.ndarray], float]
"""Of an estimate [T] and the clean signal [T]; larger is better."""


def choose(
    grid: Iterable[Baseline], pairs: Sequence[tuple[np.ndarray, np.ndarray]], rate: int, score: Score | None = None
) -> Choice:
    """The parameters with the best mean score on validation pairs (clean [T], noisy [T]); the first of equals.

    Args:
        grid: candidates, for example `GRIDS["wiener"]`.
        pairs: of a part that nothing is reported on.
        rate: in Hz.
        score: what is compared (None: SI-SDR).

    Raises:
        DataError: no pairs.
    """
    if not pairs:
        raise DataError(
            "no validation pairs to choose a baseline on",
            expected="at least one",
            remedy="hold some out (data.validation_fraction)",
        )
    judge = score or si_sdr
    tried = [(one, float(np.mean([judge(enhance(noisy, rate, one), clean) for clean, noisy in pairs]))) for one in grid]
    best, value = max(tried, key=lambda pair: pair[1])
    return Choice(best, value, tried, len(pairs))
