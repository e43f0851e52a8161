"""What the harness asks, answered: likelihoods of continuations and of whole texts, and generated text.

Options of a question are masked alike (`options.score_options`), so that noise cancels where they are compared. Noise
is addressed by task and question, so an answer does not depend on what else is asked, or where.

Shapes: P tokens of a context, L of a continuation, n options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evaluation.harness.jobs import Continue, Job, Question, Scored, Whole
from evaluation.harness.tokens import TextModel, split_pair
from generative.errors import ConfigError
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import Scorer
from generative.methods.masked_diffusion.options import OptionScores, score_options
from generative.methods.masked_diffusion.sampling import draw
from generative.randomness import Streams

STREAMS = Streams(0).within("harness")


@torch.no_grad()
def answer(model: TextModel, job: Job) -> Any:
    """`Scored` of a question, nats (negative log-likelihood) of a whole text, text that goes on.

    Raises:
        ConfigError, DataError: what does not fit the model, or its tokenizer.
    """
    if isinstance(job, Question):
        return scored(model, job)
    return text_nats(model, job) if isinstance(job, Whole) else continued(model, job)


# ---------------------------------------------------------------------- continuations


def scored(model: TextModel, question: Question) -> Scored:
    """Log-likelihoods of the continuations."""
    pairs = [split_pair(model, *pair) for pair in question.pairs]
    if not model.masked:
        exact = [_causal(model, context, after) for context, after in pairs]
        logs = tuple(-nats for nats, _ in exact)
        return Scored(logs, (0.0,) * len(logs), tuple(greedy for _, greedy in exact), _lead(logs))
    replicates = _replicates(model, question, pairs)
    found = OptionScores(replicates)
    greedy = (_writes(model, question, *pairs[0]),) if len(pairs) == 1 else (False,) * len(pairs)
    logs = tuple((-found.nats).tolist())
    second = int(found.nats.argsort(stable=True)[1]) if len(pairs) > 1 else 0
    return Scored(logs, tuple(found.stderr.tolist()), greedy, _lead(logs), float(found.lead_stderr[second]))


def _lead(logs: Sequence[float]) -> float:
    first, *rest = sorted(logs, reverse=True)
    return first - rest[0] if rest else 0.0


def _replicates(model: TextModel, question: Question, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """float64[n, R]: options with one context are asked for together."""
    rules = question.rules
    score = Scorer(_denoiser(model, rules.guidance))
    exact = rules.estimator == "chain_rule" or all(len(after) == 1 for _, after in pairs)
    found: list[Tensor | None] = [None] * len(pairs)
    for number, (context, _) in enumerate(pairs):
        if found[number] is not None:
            continue
        alike = [i for i, (other, _) in enumerate(pairs) if torch.equal(other, context)]
        scores = score_options(
            score,
            context,
            [pairs[i][1] for i in alike],
            STREAMS.within(question.task),
            question.number,
            draws=rules.draws,
            replicates=rules.replicates,
            estimator="chain_rule" if exact else rules.estimator,
        )
        for i, row in zip(alike, scores.replicates, strict=True):
            found[i] = row
    return torch.stack([row for row in found if row is not None])


def _denoiser(model: TextModel, guidance: float, within_vocabulary: bool = False) -> Denoiser:
    method = model.method
    if not within_vocabulary:
        return Denoiser(model.nets["net"], method.mask_id, None, guidance, method.form)
    drawing: Denoiser = method.denoiser(model.nets)
    return replace(drawing, guidance=guidance)


def _writes(model: TextModel, question: Question, context: Tensor, after: Tensor) -> bool:
    """Whether the most confident position first, one at a time and without chance, this continuation is written."""
    method = model.method
    canvas = torch.cat([context, torch.full_like(after, method.mask_id)])[None]
    # No confidence reaches 2, so that each step commits the most confident position alone, in any number of blocks.
    greedy = SamplingConfig(name="confidence", count="threshold", threshold=2.0, temperature=0.0)
    denoiser = _denoiser(model, question.rules.guidance, within_vocabulary=True)
    written = draw(greedy, denoiser, canvas, torch.zeros_like(canvas[:, 0]), STREAMS).tokens[0]
    return torch.equal(written[len(context) :], after)


@torch.no_grad()
def _causal(model: TextModel, context: Tensor, after: Tensor) -> tuple[float, bool]:
    """(nats, whether each token is the most probable one) of a continuation, by a causal network."""
    tokens = torch.cat([context, after])
    rows = torch.arange(len(context) - 1, len(tokens) - 1, device=tokens.device)
    logits = model.nets["net"](tokens[None, :-1], rows).float()
    nats = -logits.log_softmax(-1).gather(1, after[:, None]).double().sum()
    best = logits[:, : model.method.network.vocab_size].argmax(-1)
    return float(nats), torch.equal(best, after)


# ---------------------------------------------------------------------- whole texts


def text_nats(model: TextModel, job: Whole) -> float:
    """Nats of a text in windows of the model's context.

    A causal network sees one token before each window. A masked one sees none: its figure is a sum of bounds.
    """
    ids, total = model.encoded(job.text), 0.0
    length = model.longest
    for number, start in enumerate(range(0, len(ids), length)):
        window = model.tensor(ids[start : start + length])
        if model.masked:
            question = Question(job.task, job.number * 2**20 + number, (), job.rules)
            total += float(_replicates(model, question, [(window[:0], window)]).mean())
        else:
            before = model.first(True) if start == 0 else [int(ids[start - 1])]
            if not before:  # nothing to predict the first token from
                before, window = [int(window[0])], window[1:]
            total += _causal(model, model.tensor(before), window)[0] if len(window) else 0.0
    return total


# ---------------------------------------------------------------------- generated text


def continued(model: TextModel, job: Continue) -> str:
    """Text that goes on from the context, up to what ends it.

    Raises:
        ConfigError: an empty prompt for a causal network.
    """
    ids = model.encoded(job.context).tolist()
    prompt = model.tensor([*model.first(not ids), *ids])
    model.checked(len(prompt) + job.tokens, f"a prompt with {job.tokens} tokens to write")
    if len(prompt) == 0 and not model.masked:
        raise ConfigError("an empty prompt", "at least one token, for a causal network", "give a prompt")
    written = _written(model, job, prompt)
    eos = model.tokenizer.eos_id
    if eos is not None and eos in written:
        written = written[: written.index(eos)]
    return cut(model.tokenizer.decode(written), job.until)


def cut(text: str, until: Sequence[str]) -> str:
    """The text up to the first of the texts that end it."""
    return text[: min((place for mark in until if mark and (place := text.find(mark)) >= 0), default=len(text))]


def _written(model: TextModel, job: Continue, prompt: Tensor) -> list[int]:
    method, sample_id = model.method, torch.tensor([job.number], device=model.device)
    sampling, streams = method.config.sampling, STREAMS.within(f"{job.task}/text")
    changes: dict[str, Any] = {"temperature": job.temperature}
    if not model.masked:
        sampler = replace(
            _with_sampling(method, changes).sampler(model.nets),
            length=len(prompt) + job.tokens,
            eos_id=model.tokenizer.eos_id,
        )
        tokens: Tensor = sampler({"sample_id": sample_id, "prompt": prompt[None]}, streams)
        return [int(i) for i in tokens[0, len(prompt) :].tolist()]
    guidance = sampling.guidance if job.guidance is None else job.guidance
    changes |= {"guidance": guidance, "steps": min(sampling.steps, job.tokens)}
    canvas = torch.cat([prompt, prompt.new_full((job.tokens,), method.mask_id)])[None]
    condition = {"sample_id": sample_id, "canvas": canvas}
    tokens = _with_sampling(method, changes).sampler(model.nets).draw(condition, streams).tokens
    return [int(i) for i in tokens[0, len(prompt) :].tolist()]


def _with_sampling(method: Any, changes: dict[str, Any]) -> Any:
    """The method with other settings of its sampler."""
    sampling = method.config.sampling.model_copy(update=changes)
    return replace(method, config=method.config.model_copy(update={"sampling": sampling}))
