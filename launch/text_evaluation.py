"""The figures of evaluation.json for a text model, its windows shared out over ranks or over workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.infill import infill_estimates, infill_score
from evaluation.ngram import evaluate_ngrams
from evaluation.text import per_token, protocol_of_windows, score_part, score_windows
from generative.data.shards import WindowSource
from generative.data.sources import StreamingSource
from generative.data.text import TextData
from generative.method import Batch, Collectives, Likelihood
from generative.randomness import Streams
from generative.training.collectives import Apart
from launch.sections import TextEvaluation

NOISE_LEVELS = 10
"""Points of the curve of loss by noise level."""

Figures = dict[str, Any]

Score = Callable[[Batch], Tensor]
"""Nats of each window of a batch."""


STREAMS = Streams(0).within("evaluation")
"""Noise of all evaluations: the same windows get the same, whatever is evaluated and wherever."""


@dataclass(frozen=True)
class Subject:
    """What is measured, on what."""

    settings: TextEvaluation
    data: TextData
    method: Any
    nets: Mapping[str, nn.Module]
    collectives: Collectives
    device: torch.device


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
    meet: Callable[[], AbstractContextManager[None]] = nullcontext,
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
        meet: ranks enter, do their shares, and leave together, however long the slowest takes.
    """
    subject = Subject(settings, data, method, nets, collectives, device)
    with meet():
        shares = {
            name: score_windows(
                score,
                data.validation,
                settings.windows,
                batch_size=settings.batch_size,
                collectives=Apart(collectives.rank, collectives.world),
                device=device,
                progress=progress if name == "likelihood" else None,
            )
            for name, score in scores(subject).items()
        }
    nats = {name: collectives.gather(share.to(device)).cpu() for name, share in shares.items()}
    return summary(settings, data, method, nats, model, step)


def scores(subject: Subject) -> dict[str, Score]:
    """All that takes the networks, by name: nats of each window of a batch, float64[B] or float64[B, K]."""
    method, nets, draws = subject.method, subject.nets, subject.settings.draws
    found: dict[str, Score] = {"likelihood": _scored(method.likelihood(nets, draws, subject.settings.estimator))}
    if subject.settings.only_likelihood:
        return found
    if hasattr(method, "span_likelihood"):
        span, length, streams = _span(subject.data), _length(subject.data), STREAMS.within("infill")
        found["infill"] = infill_score(method.span_likelihood(nets, draws), span, length, streams, subject.device)
    if hasattr(method, "noise_profile"):
        profile = method.noise_profile(nets, [(low + 0.5) / NOISE_LEVELS for low in range(NOISE_LEVELS)])
        found["profile"] = lambda batch: profile(batch, STREAMS.within("profile"))
    return found


def _scored(door: Likelihood) -> Score:
    """float64[B, 2]: nats and the number of tokens that they are of, of each window; float64[B] where that is all."""
    tokens = door.tokens
    if tokens is None:
        return lambda batch: door.nats(batch, STREAMS)
    return lambda batch: torch.stack([door.nats(batch, STREAMS), tokens(batch).double()], dim=1)


def count_windows(settings: TextEvaluation, data: TextData) -> int:
    """Windows that are scored: those asked for, or all there are."""
    return min(settings.windows, len(data.validation))


def part_of(subject: Subject, score: Score, part: range, size: int) -> Tensor:
    """Scores of some of the windows, in a batch of `size` rows."""
    data, windows = subject.data.validation, subject.settings.windows
    return score_part(score, data, windows, part, size=size, device=subject.device)


def summary(
    settings: TextEvaluation, data: TextData, method: Any, nats: Mapping[str, Tensor], model: str, step: int
) -> dict[str, Any]:
    """What the scores of all windows come to, with the baselines, as it is written to evaluation.json."""
    door: Likelihood = method.likelihood({}, settings.draws, settings.estimator)
    figures = _likelihood(door, data, nats["likelihood"])
    figures |= _infilling(data, nats["infill"]) if "infill" in nats else {}
    figures |= _baselines(settings, data, door.given)
    found = {"time": time.time(), "step": step, "model": model, "data": f"held-out part of {data.description}"}
    asked = {"windows": settings.windows, "draws": settings.draws, "estimator": settings.estimator}
    return found | asked | {"figures": figures} | (_loss_by_noise(nats["profile"]) if "profile" in nats else {})


def _length(data: TextData) -> int:
    """Tokens T of a window."""
    assert data.facts.sequence_length is not None
    return data.facts.sequence_length


def _span(data: TextData) -> int:
    """Tokens of the span that is filled in."""
    return max(1, _length(data) // 8)


def _likelihood(door: Likelihood, data: TextData, nats: Tensor) -> Figures:
    note, counts = protocol_of_windows(door.protocol, len(nats), _length(data)), None
    if nats.ndim == 2:
        nats, counts = nats.unbind(1)
        note += ", the first token of each document given" if (counts < _length(data)).any() else ""
    found = per_token(nats, _length(data) if counts is None else counts, data.bytes_per_token, note, door.bound)
    return {
        door.name: found.bits_per_byte.to_json(),
        f"{door.name}_nats_per_token": found.nats_per_token.to_json(),
    }


def _infilling(data: TextData, nats: Tensor) -> Figures:
    found = infill_estimates(nats, _span(data), _length(data), bound="upper")
    return {
        "infill_both_sides": found.both_sides.to_json(),
        "infill_left_only": found.left_only.to_json(),
        "infill_gain": found.gain.to_json(),
    }


def _baselines(settings: TextEvaluation, data: TextData, given: int) -> Figures:
    if settings.only_likelihood or isinstance(data.train, StreamingSource):  # a stream cannot be counted beforehand
        return {}
    # Windows that overlap would count every n-gram several times, which misleads the choice of smoothing.
    train = data.train.once() if isinstance(data.train, WindowSource) else data.train
    found = evaluate_ngrams(
        train,
        data.validation,
        settings.windows,
        vocab_size=data.tokenizer.vocab_size,
        tokens_per_window=_length(data),
        bytes_per_token=data.bytes_per_token,
        context=given,
    )
    return {name: baseline.bits_per_byte.to_json() for name, baseline in found.items()}


def _loss_by_noise(nats: Tensor) -> dict[str, Any]:
    profile = {
        "edges": [low / NOISE_LEVELS for low in range(NOISE_LEVELS + 1)],
        "value": nats.mean(0).tolist(),
        "stderr": (nats.std(0) / len(nats) ** 0.5).tolist() if len(nats) > 1 else [None] * nats.shape[1],
    }
    return {"loss_by_noise": profile}
