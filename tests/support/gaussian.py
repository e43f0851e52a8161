"""Spectrograms whose denoiser and probability flow are known: x0 - y is N(M, S^2) in every bin."""

from __future__ import annotations

from generative.methods.sgmse.processes import spread
from generative.methods.sgmse.samplers.common import time

M, S = 0.7, 0.3


def gaussian_denoiser(process):
    """Posterior mean of x0 given x_t, where x0 - y is N(M, S^2)."""

    def denoise(x, y, t):
        a, variance = process.signal(t), process.std(t).square()
        gain = a * S**2 / (a.square() * S**2 + variance)
        return y + M + spread(gain, x) * (x - y - spread(a, x) * M)

    return denoise


def exact_flow(process, x, y, t, s):
    """Probability flow from t to s of the Gaussian case: deviations from the mean scale with the marginal's width."""
    (a_t, w_t), (a_s, w_s) = (
        (process.signal(time(u)), (process.signal(time(u)) ** 2 * S**2 + process.std(time(u)) ** 2).sqrt())
        for u in (t, s)
    )
    return y + a_s * M + w_s / w_t * (x - y - a_t * M)
