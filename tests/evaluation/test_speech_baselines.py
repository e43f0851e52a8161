"""Classical baselines: their formulas, their noise estimate, and that they help on speech-like signals."""

import math

import numpy as np
import pytest
import torch

from evaluation.speech_baselines import GRIDS, SpectralSubtraction, Wiener, choose, enhance, noise_power
from evaluation.speech_scores import si_sdr
from generative.errors import DataError
from tests.support.voices import voice


def pair(number, snr=5.0, seconds=1.0):
    clean = voice(number, seconds, 8000)
    noise = np.random.default_rng(100 + number).standard_normal(len(clean))
    noise *= math.sqrt(np.mean(clean**2) / np.mean(noise**2) * 10 ** (-snr / 10))
    return clean, clean + noise


@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.5])
def test_noise_power_is_unbiased_in_noise_alone(quantile):
    power = torch.from_numpy(3 * np.random.default_rng(0).exponential(size=(4, 200_000)))
    assert noise_power(power, quantile).numpy() == pytest.approx(3, rel=0.02)


def test_spectral_subtraction_is_its_formula():
    power = torch.tensor([[4.0, 1.0, 9.0, 1.0]], dtype=torch.float64)
    noise = 1.0 / math.log(4 / 3)  # the 0.25-quantile of these powers is 1
    found = SpectralSubtraction(0.25, 1.0, 0.05).gain(power).square() * power
    expected = [max(p - noise, 0.05 * p) for p in (4.0, 1.0, 9.0, 1.0)]
    assert found[0].tolist() == pytest.approx(expected)


def test_wiener_is_its_recursion():
    rng = np.random.default_rng(1)
    power = rng.exponential(size=6)
    noise = np.quantile(power, 0.5) / math.log(2)
    prior_power, gains = noise, []
    for p in power:
        xi = max(0.98 * prior_power / noise + 0.02 * max(p / noise - 1, 0), 10**-1.5)
        gains.append(xi / (1 + xi))
        prior_power = gains[-1] ** 2 * p
    assert Wiener(0.5, -15.0).gain(torch.from_numpy(power)[None])[0].tolist() == pytest.approx(gains)


@pytest.mark.parametrize("baseline", [SpectralSubtraction(), Wiener()])
def test_they_help_whatever_the_level_and_keep_the_length(baseline):
    clean, noisy = pair(0)
    found = enhance(noisy, 8000, baseline)
    assert found.shape == clean.shape
    assert si_sdr(found, clean) > si_sdr(noisy, clean) + 2
    assert np.allclose(enhance(1e-3 * noisy, 8000, baseline), 1e-3 * found)
    assert np.array_equal(enhance(np.zeros(1000), 8000, baseline), np.zeros(1000))


def test_a_gain_of_one_gives_the_signal_back():
    _, noisy = pair(1)
    assert np.allclose(enhance(noisy, 8000, SpectralSubtraction(over=0.0)), noisy)


def test_the_best_of_a_grid_is_chosen_on_the_validation_part():
    pairs = [pair(n) for n in range(2)]
    chosen = choose(GRIDS["wiener"], pairs, 8000)
    means = [np.mean([si_sdr(enhance(noisy, 8000, one), clean) for clean, noisy in pairs]) for one in GRIDS["wiener"]]
    assert chosen.baseline == GRIDS["wiener"][int(np.argmax(means))]
    assert chosen.value == pytest.approx(max(means))
    assert "2 validation files, best of 6" in str(chosen)
    worst = choose(GRIDS["wiener"], pairs, 8000, lambda estimate, clean: -si_sdr(estimate, clean))
    assert worst.value == pytest.approx(-min(means))
    assert len(GRIDS["spectral_subtraction"]) == 18


def test_mistakes_are_told():
    with pytest.raises(DataError, match=r"\[100\]"):
        enhance(np.zeros(100), 8000, Wiener())
    with pytest.raises(DataError, match="not finite"):
        enhance(np.full(1000, np.nan), 8000, Wiener())
    with pytest.raises(DataError, match="no validation pairs"):
        choose(GRIDS["wiener"], [], 8000)
