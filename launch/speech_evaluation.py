"""The figures of evaluation.json for speech: utterances by number, enhanced and scored anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from evaluation.speech import FileScore, SpeechItem, available_metrics, check_speech_metrics, score_files, summary
from generative.data.speech_data import SpeechData
from generative.method import Networks
from generative.methods.sgmse.enhancer import Enhancer
from generative.randomness import Streams
from launch.speech_sections import SpeechEvaluation

NOISY = "noisy_"
"""Begins the names of figures of the unprocessed utterances."""


@dataclass(frozen=True)
class Subject:
    """What is measured, on what.

    Args:
        settings: the section `evaluate`.
        data: held-out utterances.
        enhancer: with the trained network.
    """

    settings: SpeechEvaluation
    data: SpeechData
    enhancer: Enhancer

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures."""
        return metrics_of(self.settings, self.data.sample_rate)


@dataclass(frozen=True)
class Part:
    """What was found out about some utterances.

    Args:
        enhanced: scores.
        noisy: of the same files, unprocessed.
        seconds: that enhancing took.
        audio: seconds of sound.
        calls: of the network, added up over files.
    """

    enhanced: Sequence[FileScore] = ()
    noisy: Sequence[FileScore] = ()
    seconds: float = 0.0
    audio: float = 0.0
    calls: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        scores = {name: [one.to_json() for one in getattr(self, name)] for name in ("enhanced", "noisy")}
        return scores | {"seconds": self.seconds, "audio": self.audio, "calls": self.calls}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Part:
        """What `to_json` gave."""
        enhanced, noisy = ([FileScore.from_json(one) for one in data[name]] for name in ("enhanced", "noisy"))
        return Part(enhanced, noisy, data["seconds"], data["audio"], data["calls"])

    def merge(self, other: Part) -> Part:
        """Both parts together."""
        return Part(
            [*self.enhanced, *other.enhanced],
            [*self.noisy, *other.noisy],
            self.seconds + other.seconds,
            self.audio + other.audio,
            self.calls + other.calls,
        )


@dataclass
class Enhancing:
    """Enhances held-out utterances batch by batch, and keeps count of time and calls.

    Args:
        enhancer: with the network.
        data: held-out utterances.
        part: "test" or "validation".
        streams: of the sampler's noise; each utterance's is addressed by its number.
    """

    enhancer: Enhancer
    data: SpeechData
    part: str
    streams: Streams
    seconds: float = field(default=0.0, init=False)
    audio: float = field(default=0.0, init=False)
    calls: int = field(default=0, init=False)

    def items(self, numbers: Sequence[int]) -> Iterator[SpeechItem]:
        """Clean, noisy and enhanced float32[T] of each utterance."""
        size = 4 * self.enhancer.batch_size
        for start in range(0, len(numbers), size):
            chosen = numbers[start : start + size]
            pairs = [self.data.whole_pair(self.part, number) for number in chosen]
            begun = time.perf_counter()
            waves = [torch.from_numpy(np.ascontiguousarray(noisy)) for _, noisy in pairs]
            found = self.enhancer.enhance(waves, chosen, self.streams)
            self.seconds += time.perf_counter() - begun
            for number, (clean, noisy), one in zip(chosen, pairs, found, strict=True):
                self.audio += len(noisy) / self.data.sample_rate
                self.calls += one.calls
                yield SpeechItem(self.data.whole[self.part].name(number), clean, one.wave.numpy(), noisy)


def enhancer_of(method: Any, nets: Networks, batch_size: int = 8) -> Enhancer:
    """What enhances waves of any length by a method's networks."""
    found: Enhancer = method.enhancer(nets, batch_size)
    return found


def metrics_of(settings: SpeechEvaluation, rate: int) -> tuple[str, ...]:
    """What is measured: what is asked for, or all that fits the rate and is installed."""
    return available_metrics(rate) if settings.metrics is None else settings.metrics


def check_figures(settings: SpeechEvaluation, rate: int) -> None:
    """Refuse metrics that cannot be had. Raises ConfigError, DataError."""
    check_speech_metrics(metrics_of(settings, rate), rate)


def numbers_of(settings: SpeechEvaluation, data: SpeechData) -> list[int]:
    """The utterances that are measured, evenly over all."""
    count = len(data.whole[settings.part])
    chosen = min(settings.files or count, count)
    return [round(x) for x in np.linspace(0, count - 1, chosen)]


def noise_streams(seed: int) -> Streams:
    """Noise of samplers: the same wherever an utterance is enhanced."""
    return Streams(seed).within("enhance")


def measured(
    subject: Subject, numbers: Sequence[int], scorers: int = 1, progress: Callable[[int], None] = lambda files: None
) -> Part:
    """Enhance and score the utterances of these numbers."""
    settings, rate = subject.settings, subject.data.sample_rate
    enhancing = Enhancing(subject.enhancer, subject.data, settings.part, noise_streams(settings.seed))

    def both() -> Iterator[SpeechItem]:
        for item in enhancing.items(numbers):
            yield item
            assert item.noisy is not None
            yield SpeechItem(NOISY + item.name, item.clean, item.noisy)

    scores = score_files(both(), rate, subject.metrics, workers=scorers, progress=lambda done: progress(done // 2))
    noisy = [_plain(one) for one in scores if one.name.startswith(NOISY)]
    enhanced = [one for one in scores if not one.name.startswith(NOISY)]
    return Part(enhanced, noisy, enhancing.seconds, enhancing.audio, enhancing.calls)


def _plain(score: FileScore) -> FileScore:
    """Of the unprocessed file under its own name. It has no artefacts, so si_sir and si_sar are not asked for."""
    failed = {name: why for name, why in score.failed.items() if name not in ("si_sir", "si_sar")}
    return replace(score, name=score.name.removeprefix(NOISY), failed=failed)


def record(data: SpeechData, part: Part, sampler: str, model: str, step: int) -> dict[str, Any]:
    """What is written to evaluation.json."""
    enhanced, noisy = (summary(sorted(scores, key=lambda one: one.name)) for scores in (part.enhanced, part.noisy))
    figures = {name: figure.to_json() for name, figure in enhanced.figures.items()}
    files = max(1, len(part.enhanced))
    return {
        "time": time.time(),
        "step": step,
        "model": model,
        "data": f"{len(part.enhanced):,} held-out utterances of {data.description}",
        "sampler": sampler,
        "network_calls": part.calls / files,
        "real_time_factor": part.seconds / part.audio if part.audio else None,
        "failed": list(enhanced.failed)[:1000],
        "figures": figures | {NOISY + name: figure.to_json() for name, figure in noisy.figures.items()},
    }
