"""Erasing concepts from a model on the disk: what is read, what is computed, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from generative.data.cache import default_cache
from generative.errors import ConfigError
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.closed_form import gram
from generative.methods.rece.encoders import TextEncoders
from generative.methods.rece.erase import Erasure, SharedTransform, Task, erase
from generative.methods.rece.families import Stream, chosen_streams
from generative.methods.rece.formats import Edits, Erased, check_held, edited_weights
from generative.methods.rece.layers import Layers
from generative.methods.rece.preserve import Kept, cached, content_hash
from generative.methods.rece.request import Encode, Request, Sums, keep_groups, keep_sums, tasks
from generative.methods.rece.tokens import Variant
from generative.methods.rece.transform import Transform

Summing = Callable[[Iterable[str], Encode, Sequence[Variant]], Sums]
"""What `keep_sums` does: here, or by workers."""


@dataclass(frozen=True)
class Outcome:
    """An erasure, before anything is written.

    Args:
        model: the untouched one.
        streams: its readers of text that were edited.
        edits: all erasures of the model, this one last; None where no transform can express it (`tensor`).
        weights: of the readers, as in the base model.
        edited: the same after all erasures, in the same number formats.
        tasks: what was asked for, by stream.
        erasures: how it went, by stream; empty without transforms.
    """

    model: TextToImage
    streams: Sequence[Stream]
    edits: Edits | None
    weights: Mapping[str, Tensor]
    edited: Mapping[str, Tensor]
    tasks: Mapping[str, Task]
    erasures: Mapping[str, Erasure[SharedTransform]] = field(default_factory=dict)

    def applied(self, stream: str) -> SharedTransform:
        """A stream as it was written: this erasure at its strength, on the earlier ones."""
        state = self.erasures[stream].state
        assert self.edits is not None
        return replace(state, transform=state.transform.scaled(self.edits.erased[-1].strength))

    def rounding(self) -> float | None:
        """Largest part of a matrix's change that was lost in its number format, |rounding|_F / |dW|_F.

        None: no transform tells what the exact change is (`tensor`).
        """
        if self.edits is None:
            return None
        total, worst = self.edits.total(), 0.0
        for stream in self.streams:
            transform = total[stream.name]
            for name in stream.readers:
                base = self.weights[name][:, stream.columns].double()
                exact = (base @ transform.p) @ transform.q.T
                lost = self.edited[name][:, stream.columns].double() - base - exact
                worst = max(worst, float(lost.norm() / exact.norm().clamp_min(1e-300)))
        return worst


@dataclass(frozen=True)
class Asked:
    """How to erase.

    Args:
        request: what is erased.
        keep: texts that stay beside the empty one, of any number; read more than once.
        earlier: erasures of the model that this one builds on.
        include: of the names of matrices that are edited (regular expression).
        exclude: of those that are not.
        text_folder: a pipeline with text encoders, for a file alone.
        cache: of sums over texts and weights.
        strength: part of this erasure that is applied.
        summing: sums over the texts that stay, where the cache does not have them.
    """

    request: Request
    keep: Callable[[], Iterable[str]] = tuple
    earlier: Edits | None = None
    include: str | None = None
    exclude: str | None = None
    text_folder: Path | None = None
    cache: Path | None = None
    strength: float = 1.0
    summing: Summing = keep_sums


def erase_model(model: TextToImage, asked: Asked) -> Outcome:
    """Erase; the model's files stay as they are.

    Raises:
        ConfigError: what is asked for cannot be (see `tasks`), builds on edits of other matrices, or gives numbers that
            the weights' format cannot hold.
        CheckpointError: the model cannot be read, or the earlier edits are of another one.
    """
    asked.request.paired()
    everything = model.streams()
    streams = chosen_streams(everything, asked.include, asked.exclude)
    weights = model.read([name for stream in streams for name in stream.readers])
    base_hash = model.fingerprint(everything)
    if asked.earlier is not None:
        asked.earlier.check_base(base_hash)
        _check_same_layers(asked)
    encoders = model.encoders(asked.text_folder)
    cache = asked.cache or default_cache().parent / "erasure"
    work = tasks(asked.request, encoders.encode, _kept(asked, encoders, cache))
    if "tensor" in (asked.request.config.start.technique, asked.request.config.step.technique):
        return _by_layers(model, streams, everything, weights, work, asked)
    before = {} if asked.earlier is None else asked.earlier.total()
    found = {}
    for stream in streams:
        whole = next(one for one in everything if one.name == stream.name)
        state = _state(model, stream, whole, base_hash, cache, before)
        found[stream.name] = erase(state, work[stream.name], asked.request.config)
    made = Erased({name: one.state.transform for name, one in found.items()}, told(asked, work), asked.strength)
    earlier = asked.earlier or Edits(model.name, base_hash, (), model.revision)
    extra = {"include": asked.include, "exclude": asked.exclude, **({} if model.text is None else {"text": model.text})}
    edits = Edits(earlier.base, base_hash, (*earlier.erased, made), earlier.revision, extra)
    edited = edited_weights(weights, streams, edits.total())
    return Outcome(model, streams, edits, weights, edited, work, found)


def _state(
    model: TextToImage, stream: Stream, whole: Stream, base_hash: str, cache: Path, before: Mapping[str, Transform]
) -> SharedTransform:
    def of(names: Sequence[str]) -> Tensor:
        key = content_hash([base_hash, *sorted(names)], "weights", ["whole"])
        parts = (model.read([name])[name][:, stream.columns] for name in names)
        return cached(cache, key, lambda: {"gram": Kept(gram(parts, stream.width), 0)})["gram"].gram

    rest = [name for name in whole.readers if name not in stream.readers]
    return SharedTransform.of(of(stream.readers), before.get(stream.name), of(rest) if rest else None)


def _by_layers(
    model: TextToImage,
    streams: Sequence[Stream],
    everything: Sequence[Stream],
    weights: Mapping[str, Tensor],
    work: Mapping[str, Task],
    asked: Asked,
) -> Outcome:
    """Layer by layer, from the base model; readers that stay as they are count in derivations all the same."""
    if asked.earlier is not None or asked.strength != 1:
        raise ConfigError(
            "the technique `tensor` has no transform: it cannot build on one, nor be applied in part",
            expected="replace; or a base model, and the whole edit",
            remedy="use technique=replace, or write the earlier edit as a full model and start from that",
        )
    edited = dict(weights)
    for stream in streams:
        whole = next(one for one in everything if one.name == stream.name)
        parts = {name: weight[:, stream.columns] for name, weight in model.read(whole.readers).items()}
        state = Layers.of(parts, frozenset(stream.readers))
        current = erase(state, work[stream.name], asked.request.config).state.current
        for name in stream.readers:
            edited[name] = weights[name].clone()
            edited[name][:, stream.columns] = current[name].to(weights[name].dtype)
            check_held(edited[name], name)
    return Outcome(model, streams, None, weights, edited, work)


def _kept(asked: Asked, encoders: TextEncoders, cache: Path) -> Sums:
    """Sums over the texts that stay, from the cache where they are there."""
    groups = keep_groups(asked.request.config)
    if next(iter(asked.keep()), None) is None:
        return {}
    key = content_hash(asked.keep(), encoders.fingerprint(), groups)

    def make() -> dict[str, Kept]:
        found = asked.summing(asked.keep(), encoders.encode, groups)
        return {f"{stream}/{group}": kept for (stream, group), kept in found.items()}

    found: dict[tuple[str, Variant], Kept] = {}
    for name, kept in cached(cache, key, make).items():
        stream, _, group = name.partition("/")
        found[stream, "last" if group == "last" else "whole"] = kept
    return found


def _check_same_layers(asked: Asked) -> None:
    assert asked.earlier is not None
    before = (asked.earlier.extra.get("include"), asked.earlier.extra.get("exclude"))
    if before != (asked.include, asked.exclude):
        raise ConfigError(
            f"the earlier edit is of the matrices include={before[0]!r}, exclude={before[1]!r}",
            expected="the same for all edits of a model",
            remedy="give the same --include and --exclude, or start from the base model",
        )


def told(asked: Asked, work: Mapping[str, Task]) -> dict[str, object]:
    """What is recorded of an erasure."""
    request = asked.request
    first = next(iter(work.values()))
    return {
        "concepts": [concept for concept, _ in request.paired()],
        "guides": [guide for _, guide in request.paired()],
        "targets": list(request.targets),
        "config": request.config.model_dump(mode="json"),
        "kept_texts": first.kept_at_start.texts,
        "kept_hash": content_hash(asked.keep(), "", []),
        "torch": torch.__version__,
    }
