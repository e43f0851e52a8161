"""The sampler that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.masked_diffusion.canvas import Canvas, Observer, Sampled, Step
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.noise import SCHEDULES, Schedule
from generative.methods.masked_diffusion.policies import (
    Ancestral,
    AtRandom,
    Counts,
    EvenCounts,
    Ranked,
    RoundedCounts,
    Rule,
    ScheduledCounts,
    Threshold,
    one,
    unmask_chances,
)
from generative.methods.masked_diffusion.sampler import Block, StreamNoise, TokenPolicy, fill
from generative.nets.vocabulary import check_ids
from generative.randomness import Streams


def draw(
    settings: SamplingConfig,
    denoiser: Denoiser,
    canvas: Tensor,
    sample_id: Tensor,
    streams: Streams,
    schedule: Schedule = SCHEDULES["linear"],
    observer: Observer | None = None,
    eos_id: int | None = None,
) -> Sampled:
    """Fill a canvas int64[B, T] by the configured sampler; noise by sample_id int64[B].

    Args:
        settings: which sampler.
        denoiser: the network, with the guidance of the settings.
        canvas: mask ids where tokens are wanted.
        sample_id: one a row.
        streams: noise.
        schedule: sets the times at which positions are unmasked.
        observer: told after each step.
        eos_id: a generated token that ends its sample, where settings.stop_at_eos is set.

    Raises:
        ConfigError: rows and ids differ in number; a token that the network does not know; more steps than tokens where
            each step commits some; fewer steps than blocks; a cache that the network does not fit; forbidden ids that
            it does not have.
    """
    if len(canvas) != len(sample_id):
        raise ConfigError(
            f"{len(canvas)} canvases but {len(sample_id)} sample ids",
            "one sample id a canvas",
            "give condition['canvas'] and condition['sample_id'] the same number of rows",
        )
    _check(settings, denoiser)
    check_ids(canvas[canvas != denoiser.mask_id], denoiser.vocab_size)
    policy = TokenPolicy(settings.temperature, settings.top_k, settings.top_p, settings.token_noise)
    result = Sampled(canvas.clone(), *(torch.zeros_like(sample_id) for _ in range(3)))
    for rows in _together(settings, denoiser, canvas == denoiser.mask_id):
        tell = observer if len(rows) == len(canvas) or observer is None else _among(rows, result, denoiser, observer)
        state = Canvas(
            denoiser,
            canvas[rows],
            cache=settings.cache,
            eos_id=eos_id if settings.stop_at_eos else None,
            observer=tell,
        )
        noise = StreamNoise(streams, sample_id[rows], canvas.shape[1], policy)
        found = fill(state, noise, list(_blocks(settings, denoiser, state.wanted, schedule)))
        for whole, part in zip(
            (result.tokens, result.calls, result.fed, result.lengths),
            (found.tokens, found.calls, found.fed, found.lengths),
            strict=True,
        ):
            whole[rows] = part
    return result


def check_settings(settings: SamplingConfig, denoiser: Denoiser, wanted: Tensor) -> None:
    """Refuse settings with which `draw` cannot fill canvases that are masked where bool[B, T] says.

    The network is not called, so that this can be known before it is trained. Raises ConfigError as `draw` does.
    """
    _check(settings, denoiser)
    for rows in _together(settings, denoiser, wanted):
        for _ in _blocks(settings, denoiser, wanted[rows], SCHEDULES["linear"]):
            pass  # each is checked as it is made


def _together(settings: SamplingConfig, denoiser: Denoiser, wanted: Tensor) -> list[Tensor]:
    """Rows of bool[B, T] that are filled together, as groups of indices int64."""
    # Blocks follow from where the masks are, so rows that differ in that are filled one kind after the other.
    apart = settings.block_length is not None or settings.cache != "none" or denoiser.form.block_size is not None
    return _alike(wanted) if apart else [torch.arange(len(wanted), device=wanted.device)]


def _blocks(settings: SamplingConfig, denoiser: Denoiser, wanted: Tensor, schedule: Schedule) -> Iterator[Block]:
    """The blocks of rows that have masks at the same places (or one for everything, whatever the places)."""
    any_wanted = wanted.any(0)
    if not any_wanted.any():
        return
    T = wanted.shape[1]
    if denoiser.form.block_size is not None:  # places are in the blocks of training
        number = torch.arange(T, device=wanted.device) // denoiser.form.block_size
    elif settings.block_length is not None:  # so many masked places in each
        number = (any_wanted.long().cumsum(0) - 1) // settings.block_length
    else:
        number = torch.zeros(T, dtype=torch.int64, device=wanted.device)
    numbers = sorted(set(number[any_wanted].tolist()))
    steps = settings.steps // len(numbers)
    if steps < 1 and not _adaptive(settings):
        raise ConfigError(
            f"method.sampling.steps={settings.steps} for {len(numbers)} blocks",
            "at least one step for each block",
            f"raise method.sampling.steps to {len(numbers)} or more, or take longer blocks",
        )
    for each in numbers:
        places = (number == each) & any_wanted
        tokens = int((wanted & places).sum(1).max())
        limit = tokens if _adaptive(settings) else steps
        # Each block has noise of its own wherever a neighbour's sample is at the time.
        rule = _rule(settings, steps, (wanted & places).sum(1).tolist(), schedule)
        yield Block(places, *_extent(places, each, denoiser.form.block_size), rule, limit, each * max(steps, T))


def _extent(places: Tensor, number: int, block_size: int | None) -> tuple[int, int]:
    """First position of a block and the last plus one: all of the block of training, or from mask to mask."""
    if block_size is not None:
        return number * block_size, min((number + 1) * block_size, len(places))
    inside = places.nonzero()[:, 0]
    return int(inside[0]), int(inside[-1]) + 1


def _adaptive(settings: SamplingConfig) -> bool:
    """Whether each step commits at least one position until all are."""
    return settings.name == "first_hitting" or settings.count == "threshold"


def _rule(settings: SamplingConfig, steps: int, tokens: list[int], schedule: Schedule) -> Rule:
    if settings.name == "first_hitting":
        return AtRandom(one)
    if settings.name == "ancestral":
        return Ancestral(unmask_chances(steps, schedule))
    if settings.count == "threshold":
        assert settings.name != "random"
        return Threshold(settings.threshold, settings.name)
    counts = _counts(settings, steps, tokens, schedule)
    if settings.name == "random":
        return AtRandom(counts)
    return Ranked(counts, settings.name, settings.order_temperature, settings.batch_coupled)


def _counts(settings: SamplingConfig, steps: int, tokens: list[int], schedule: Schedule) -> Counts:
    if settings.count != "even":
        if settings.count == "rounded":
            return RoundedCounts(unmask_chances(steps, schedule, 0.0, torch.float64))
        return ScheduledCounts(unmask_chances(steps, schedule))
    least = min((n for n in tokens if n > 0), default=steps)
    if steps > least:
        raise ConfigError(
            f"{steps} steps for {least} masked tokens, with method.sampling.count=even",
            "at most one step for each token",
            f"lower method.sampling.steps to {least} (a block), or set method.sampling.count=schedule",
        )
    return EvenCounts(steps)


def _check(settings: SamplingConfig, denoiser: Denoiser) -> None:
    _check_forbidden(denoiser)
    exact = denoiser.form.block_size is not None
    if exact and settings.cache in ("prefix", "dual"):
        raise ConfigError(
            f"method.sampling.cache={settings.cache}, with a model trained by block diffusion",
            "cache=exact, which such a model allows, or none",
            "set method.sampling.cache=exact",
        )
    if not exact and settings.cache == "exact":
        raise ConfigError(
            "method.sampling.cache=exact, with a model whose tokens see those after them",
            "a model trained by block diffusion (method.block_size), or an approximate cache",
            "set method.sampling.cache to prefix or dual",
        )


def _check_forbidden(denoiser: Denoiser) -> None:
    """Refuse forbidden ids that are no tokens of the network, or that are all of them. Raises ConfigError."""
    forbidden, outputs = set(denoiser.forbidden), denoiser.mask_id
    wrong = next((i for i in denoiser.forbidden if not 0 <= i < outputs), None)
    if wrong is not None:
        raise ConfigError(
            f"method.sampling.forbidden_ids: the network has no token {wrong}"
            + (", which is its mask token and never drawn" if wrong == denoiser.mask_id else ""),
            f"ids from 0 to {outputs - 1}",
            "correct method.sampling.forbidden_ids",
        )
    if forbidden >= set(range(denoiser.vocab_size or outputs)):
        raise ConfigError(
            f"method.sampling.forbidden_ids has all {len(forbidden)} tokens of the network",
            "at least one token that may be drawn",
            "leave out one of method.sampling.forbidden_ids",
        )


def _alike(wanted: Tensor) -> list[Tensor]:
    """Rows of bool[B, T] that are equal, as groups of indices int64."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for row, places in enumerate(wanted.tolist()):
        groups.setdefault(tuple(places), []).append(row)
    return [torch.tensor(rows, device=wanted.device) for rows in groups.values()]


def _among(rows: Tensor, result: Sampled, denoiser: Denoiser, observer: Observer) -> Observer:
    """An observer of some of the rows that tells another of them all."""

    def tell(step: Step) -> None:
        canvas, calls = result.tokens.clone(), result.calls.clone()
        canvas[rows], calls[rows] = step.canvas, step.calls
        new = torch.zeros(canvas.shape, dtype=torch.bool, device=canvas.device)
        new[rows] = step.new
        observer(Step(step.index, calls, canvas, new, canvas == denoiser.mask_id))

    return tell
