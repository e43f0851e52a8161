"""The figures of evaluation.json for a text model, shared out over ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evaluation.ngram import evaluate_ngrams
from evaluation.text import evaluate_likelihood, infill_check, score_windows
from generative.data.shards import WindowSource
from generative.data.sources import StreamingSource
from generative.data.text import TextData
from generative.method import Collectives, Likelihood
from generative.randomness import Streams
from launch.schema import TextEvaluation

NOISE_LEVELS = 10
"""Points of the curve of loss by noise level."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is measured, on what, and with which noise."""

    settings: TextEvaluation
    data: TextData
    method: Any
    nets: Mapping[str, nn.Module]
    collectives: Collectives
    device: torch.device
    streams: Streams

    @property
    def length(self) -> int:
        """Tokens T of a window."""
        assert self.data.facts.sequence_length is not None
        return self.data.facts.sequence_length

    @property
    def sharing(self) -> dict[str, Any]:
        """How windows are batched and shared out; changes nothing but speed."""
        return {"batch_size": self.settings.batch_size, "collectives": self.collectives, "device": self.device}


def evaluate(
    settings: TextEvaluation,
    data: TextData,
    method: Any,
    nets: Mapping[str, nn.Module],
    collectives: Collectives,
    device: torch.device,
    model: str,
    step: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Likelihood, infilling where the method can, n-gram baselines on the same windows, loss by noise level.

    Args:
        settings: how many windows and draws.
        data: held-out text, and the training text for the baselines.
        method: the trained method.
        nets: its networks in eval mode.
        collectives: all ranks must call this together.
        device: where the networks are.
        model: name of the weights, for the record.
        step: that they were trained for.
        progress: told the windows of the likelihood that are done, and all.
    """
    subject = Subject(settings, data, method, nets, collectives, device, Streams(0).within("evaluation"))
    figures = _likelihood(subject, progress) | _infilling(subject) | _baselines(subject)
    found = {"time": time.time(), "step": step, "model": model, "data": f"held-out part of {data.description}"}
    asked = {"windows": settings.windows, "draws": settings.draws}
    return found | asked | {"figures": figures} | _loss_by_noise(subject)


def _likelihood(subject: Subject, progress: Callable[[int, int], None] | None) -> Figures:
    door: Likelihood = subject.method.likelihood(subject.nets, subject.settings.draws)
    found = evaluate_likelihood(
        door.nats,
        subject.data.validation,
        subject.settings.windows,
        streams=subject.streams,
        tokens_per_window=subject.length,
        bytes_per_token=subject.data.bytes_per_token,
        progress=progress,
        protocol=door.protocol,
        bound=door.bound,
        **subject.sharing,
    )
    return {
        door.name: found.bits_per_byte.to_json(),
        f"{door.name}_nats_per_token": found.nats_per_token.to_json(),
    }


def _infilling(subject: Subject) -> Figures:
    if not hasattr(subject.method, "span_likelihood"):
        return {}
    found = infill_check(
        subject.method.span_likelihood(subject.nets, subject.settings.draws),
        subject.data.validation,
        subject.settings.windows,
        span=max(1, subject.length // 8),
        streams=subject.streams.within("infill"),
        tokens_per_window=subject.length,
        bound="upper",
        **subject.sharing,
    )
    return {
        "infill_both_sides": found.both_sides.to_json(),
        "infill_left_only": found.left_only.to_json(),
        "infill_gain": found.gain.to_json(),
    }


def _baselines(subject: Subject) -> Figures:
    data = subject.data
    if isinstance(data.train, StreamingSource):  # a stream cannot be counted beforehand
        return {}
    given = subject.method.likelihood(subject.nets, subject.settings.draws).given
    # Windows that overlap would count every n-gram several times, which misleads the choice of smoothing.
    train = data.train.once() if isinstance(data.train, WindowSource) else data.train
    found = evaluate_ngrams(
        train,
        data.validation,
        subject.settings.windows,
        vocab_size=data.tokenizer.vocab_size,
        tokens_per_window=subject.length,
        bytes_per_token=data.bytes_per_token,
        context=given,
    )
    return {name: baseline.bits_per_byte.to_json() for name, baseline in found.items()}


def _loss_by_noise(subject: Subject) -> dict[str, Any]:
    if not hasattr(subject.method, "noise_profile"):
        return {}
    levels = [(low + 0.5) / NOISE_LEVELS for low in range(NOISE_LEVELS)]
    score, streams = subject.method.noise_profile(subject.nets, levels), subject.streams.within("profile")
    nats = score_windows(
        lambda batch: score(batch, streams), subject.data.validation, subject.settings.windows, **subject.sharing
    )
    profile = {
        "edges": [low / NOISE_LEVELS for low in range(NOISE_LEVELS + 1)],
        "value": nats.mean(0).tolist(),
        "stderr": (nats.std(0) / len(nats) ** 0.5).tolist(),
    }
    return {"loss_by_noise": profile}
