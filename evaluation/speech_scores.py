"""Figures of one enhanced utterance: the energy ratios, STOI and ESTOI, PESQ. Nothing here averages."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from generative.data.packages import needed
from generative.data.speech_files import is_silent, resampled
from generative.errors import ConfigError, DataError, suggestion

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class EnergyRatios:
    """SI-SDR, SI-SIR and SI-SAR in dB; infinite or NaN where a component vanishes."""

    si_sdr: float
    si_sir: float
    si_sar: float


class UnscoredError(Exception):
    """Why a metric has no value for a file; it is listed, and left out of the mean."""


def energy_ratios(estimate: ArrayLike, clean: ArrayLike, noise: ArrayLike) -> EnergyRatios:
    """Scale-invariant energy ratios of an estimate, as in the evaluation of SGMSE+ (Richter et al. 2023).

    With s the clean signal and n = noisy - clean: target = (<e,s>/|s|^2) s, interference = (<e,n>/|n|^2) n, artefacts =
    e - target - interference. SI-SDR = |target|^2 / |interference + artefacts|^2, SI-SIR = |target|^2 /
    |interference|^2, SI-SAR = |target|^2 / |artefacts|^2. No mean is removed, and s and n are not made orthogonal.

    Args:
        estimate, clean, noise: [T], of one length and any scale.
    """
    e, s, n = (np.asarray(x, dtype=np.float64).ravel() for x in (estimate, clean, noise))
    target, interference = _projection(e, s), _projection(e, n)
    artefacts = e - target - interference
    return EnergyRatios(*(_decibels(target, rest) for rest in (interference + artefacts, interference, artefacts)))


def si_sdr(estimate: ArrayLike, clean: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, without removal of the mean)."""
    e, s = (np.asarray(x, dtype=np.float64).ravel() for x in (estimate, clean))
    target = _projection(e, s)
    return _decibels(target, e - target)


def level_error(estimate: ArrayLike, clean: ArrayLike) -> float:
    """|20 log10 a| in dB of the clean signal's part in the estimate, a = <e,s>/|s|^2: too loud or too quiet by so much.

    All other figures here leave the scale aside. Infinite or NaN where nothing of the clean signal is there.
    """
    e, s = (np.asarray(x, dtype=np.float64).ravel() for x in (estimate, clean))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(abs(20 * np.log10(np.float64(_gain(e, s)))))


def _projection(signal: Signal, onto: Signal) -> Signal:
    return onto * _gain(signal, onto)


def _gain(signal: Signal, onto: Signal) -> float:
    """<signal,onto> / |onto|^2; 0 onto nothing."""
    energy = float(onto @ onto)
    return float(signal @ onto) / energy if energy > 0 else 0.0


def _decibels(over: Signal, under: Signal) -> float:
    above, below = float(over @ over), float(under @ under)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(above) / np.float64(below)))


@dataclass(frozen=True)
class Heard:
    """One utterance as the metrics see it: clean and estimate [T], noise = noisy - clean [T] or None, rate in Hz."""

    clean: Signal
    estimate: Signal
    noise: Signal | None
    rate: int


def _ratios(name: str) -> Callable[[Heard], float]:
    def ratio(heard: Heard) -> float:
        if name == "si_sdr":
            return si_sdr(heard.estimate, heard.clean)
        if heard.noise is None or not float(heard.noise @ heard.noise) > 0:
            raise UnscoredError("no noise is known: give the noisy file too")
        return float(getattr(energy_ratios(heard.estimate, heard.clean, heard.noise), name))

    return ratio


def _intelligibility(extended: bool) -> Callable[[Heard], float]:
    def score(heard: Heard) -> float:
        library = _package("pystoi", "pystoi", "STOI")
        with warnings.catch_warnings():
            # On too little speech pystoi warns and returns 1e-5, which would pass for a measurement.
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(library.stoi(heard.clean, heard.estimate, heard.rate, extended=extended))
            except RuntimeWarning as warning:
                short = "Not enough STFT frames" in str(warning)
                raise UnscoredError("less than about 0.4 s of speech" if short else str(warning)) from warning

    return score


def _pesq(mode: str) -> Callable[[Heard], float]:
    def score(heard: Heard) -> float:
        rate = pesq_rate(mode, heard.rate)
        library = _package("pesq", "pesq", "PESQ")
        reference, degraded = (resampled(x, heard.rate, rate) for x in (heard.clean, heard.estimate))
        try:
            return float(library.pesq(rate, reference.astype(np.float32), degraded.astype(np.float32), mode))
        except library.PesqError as error:
            text = error.args[0] if error.args else type(error).__name__
            raise UnscoredError(text.decode() if isinstance(text, bytes) else str(text)) from error

    return score


def pesq_rate(mode: str, rate: int) -> int:
    """Rate in Hz that PESQ works at (ITU-T P.862: nb at 8 or 16 kHz; P.862.2: wb at 16 kHz)."""
    return 8000 if mode == "nb" and rate < 16000 else 16000


def _package(module: str, package: str, what: str) -> Any:
    return needed(module, package=package, extra="speech", by=what, instead="metrics that do not need it")


@dataclass(frozen=True)
class SpeechMetric:
    """A figure of an utterance: how it is had, its unit, the package that it needs, and a note for the protocol."""

    score: Callable[[Heard], float]
    unit: str = ""
    package: str = ""
    note: str = ""


METRICS: Mapping[str, SpeechMetric] = {
    "si_sdr": SpeechMetric(_ratios("si_sdr"), "dB", note="no mean removal"),
    "si_sir": SpeechMetric(_ratios("si_sir"), "dB"),
    "si_sar": SpeechMetric(_ratios("si_sar"), "dB"),
    "level_error": SpeechMetric(lambda heard: level_error(heard.estimate, heard.clean), "dB", note="absolute"),
    "estoi": SpeechMetric(_intelligibility(True), package="pystoi", note="extended"),
    "stoi": SpeechMetric(_intelligibility(False), package="pystoi"),
    "pesq_nb": SpeechMetric(_pesq("nb"), package="pesq", note="P.862.1, narrow band"),
    "pesq_wb": SpeechMetric(_pesq("wb"), package="pesq", note="P.862.2, wide band at 16 kHz"),
}
"""What can be asked for."""


def check_speech_metrics(metrics: Sequence[str], rate: int) -> None:
    """Refuse what cannot be measured before the first file is read.

    Raises:
        ConfigError: an unknown metric, or wide-band PESQ of narrow-band audio.
        DataError: a package is missing.
    """
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(
                f"unknown metric {name!r}{suggestion(name, METRICS)}",
                expected=f"one of {', '.join(METRICS)}",
                remedy="correct evaluate.metrics",
            )
        if name == "pesq_wb" and rate < 16000:
            raise ConfigError(
                f"pesq_wb of audio at {rate} Hz",
                expected="16000 Hz or more",
                remedy="ask for pesq_nb instead",
            )
        if METRICS[name].package:
            _package(METRICS[name].package, METRICS[name].package, f"the metric {name}")


def default_metrics(rate: int) -> tuple[str, ...]:
    """All that fit the rate: PESQ nb below 16 kHz, else wb; whether or not their packages are installed."""
    left_out = "pesq_wb" if rate < 16000 else "pesq_nb"
    return tuple(name for name in METRICS if name != left_out)


def available_metrics(rate: int) -> tuple[str, ...]:
    """Those of `default_metrics` whose packages are installed."""
    return tuple(n for n in default_metrics(rate) if not METRICS[n].package or find_spec(METRICS[n].package))


def score(heard: Heard, metrics: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Values by metric, and reasons by metric where there is none. Packages must be there (`check_speech_metrics`)."""
    values: dict[str, float] = {}
    failed: dict[str, str] = {}
    reason = _unusable(heard)
    for name in metrics:
        try:
            if reason:
                raise UnscoredError(reason)
            value = METRICS[name].score(heard)
            if not math.isfinite(value):
                raise UnscoredError(f"the value is {value}")
            values[name] = value
        except (UnscoredError, ValueError) as error:
            failed[name] = str(error)
    return values, failed


def _unusable(heard: Heard) -> str:
    if len(heard.clean) != len(heard.estimate) or (heard.noise is not None and len(heard.noise) != len(heard.clean)):
        return f"lengths differ ({len(heard.clean)} clean, {len(heard.estimate)} estimated samples)"
    for what, signal in (("clean", heard.clean), ("estimate", heard.estimate)):
        if not np.isfinite(signal).all():
            return f"the {what} signal is not finite"
        if is_silent(signal):
            return f"the {what} signal is silent"
    return ""


def utterance(clean: ArrayLike, estimate: ArrayLike, noisy: ArrayLike | None, rate: int) -> Heard:
    """Signals [T] of one utterance at `rate` Hz as the metrics see them.

    Raises:
        DataError: more than one channel.
    """
    found = [None if x is None else np.asarray(x, dtype=np.float64) for x in (clean, estimate, noisy)]
    if any(x is not None and x.ndim != 1 for x in found):
        shapes = [list(x.shape) for x in found if x is not None]
        raise DataError(
            f"signals of shapes {shapes}", expected="one channel, [T]", remedy="give the channels one by one"
        )
    reference, enhanced, mixed = found
    assert reference is not None
    assert enhanced is not None
    noise = None if mixed is None else mixed - reference if len(mixed) == len(reference) else mixed
    return Heard(reference, enhanced, noise, rate)
