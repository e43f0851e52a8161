"""Edits as files: partial weights (UCE's interchange format), transforms, and LoRA for diffusers.

partial: the edited matrices alone, under their names in diffusers; `denoiser.load_state_dict(partial, strict=False)`.
transform: P and Q of every erasure in order, and what it was made from and for. In float64, since undo and stacking
    begin with them: 768 x 307 twice, 3.8 MB, for the preset nudity at SD 1.4.
LoRA: one pair of matrices for each reader of the text, for `pipe.load_lora_weights`, at alpha = rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from generative import __version__
from generative.errors import CheckpointError, ConfigError
from generative.methods.rece.families import Stream
from generative.methods.rece.transform import Transform

PARTIAL, TRANSFORM, LORA = "partial.safetensors", "transform.safetensors", "pytorch_lora_weights.safetensors"
"""LORA is the name that diffusers looks for in a folder."""
KIND = "generative.erasure"


@dataclass(frozen=True)
class Erased:
    """One erasure of a model.

    Args:
        transforms: by stream.
        about: concepts, guides, constants: plain values.
        strength: part of it that is applied, I + strength (T - I).
    """

    transforms: Mapping[str, Transform]
    about: Mapping[str, Any]
    strength: float = 1.0


@dataclass(frozen=True)
class Edits:
    """Erasures one after the other, and the model that they are of.

    Args:
        base: name or path of the untouched model.
        revision: of it on the hub.
        base_hash: of its matrices that read text.
        erased: in order; each built on those before.
        extra: further plain values: `include` and `exclude`, where only some matrices are edited.
    """

    base: str
    base_hash: str
    erased: Sequence[Erased] = ()
    revision: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def total(self) -> dict[str, Transform]:
        """T by stream: the product of all erasures, each at its strength."""
        found: dict[str, Transform] = {}
        for one in self.erased:
            for name, whole in one.transforms.items():
                transform = whole.scaled(one.strength)
                found[name] = found[name].then(transform) if name in found else transform
        return found

    def at_run_time(self) -> dict[str, Transform]:
        """T by stream, to be put before the whole denoiser.

        Raises:
            CheckpointError: only some of the matrices are edited: the others would read the changed text too.
        """
        chosen = {key: self.extra[key] for key in ("include", "exclude") if self.extra.get(key)}
        if chosen:
            raise CheckpointError(
                f"the edit is of the matrices {chosen} alone, and at run time all of them read the same text",
                expected="an edit of all matrices",
                remedy="load its partial weights or LoRA instead",
            )
        return self.total()

    def check_base(self, base_hash: str) -> None:
        """Raises CheckpointError: they are of another model."""
        if base_hash != self.base_hash:
            raise CheckpointError(
                f"the edit is of a model with the hash {self.base_hash[:16]}, this one has {base_hash[:16]}",
                expected=f"{self.base}, unchanged",
                remedy="give the model that the edit was made from; a fine-tuned one needs an edit of its own",
            )

    def told(self) -> dict[str, Any]:
        """All but the numbers, as plain values."""
        return {
            "base": self.base,
            "revision": self.revision,
            "base_hash": self.base_hash,
            "version": __version__,
            "edits": [{**one.about, "strength": one.strength} for one in self.erased],
            **self.extra,
        }


def transform_bytes(edits: Edits) -> bytes:
    """The file `transform`."""
    tensors = {}
    for number, one in enumerate(edits.erased):
        for name, transform in one.transforms.items():
            tensors[f"{number}/{name}/p"] = transform.p.contiguous()
            tensors[f"{number}/{name}/q"] = transform.q.contiguous()
    return _saved(tensors, {"kind": KIND, "edits": json.dumps(edits.told())})


def read_transform(path: Path) -> Edits:
    """Read what `transform_bytes` made.

    Raises:
        CheckpointError: no such file, damaged, or another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise CheckpointError(f"{path} is no transform", f"a file {TRANSFORM}", "give one that erase wrote")
            told = json.loads(metadata["edits"])
            tensors = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118
            erased = [_erased(tensors, i, about) for i, about in enumerate(told["edits"])]
            known = ("base", "revision", "base_hash", "version", "edits")
            extra = {key: value for key, value in told.items() if key not in known}
            return Edits(told["base"], told["base_hash"], erased, told.get("revision"), extra)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a transform: {error}", f"a whole file {TRANSFORM}", "copy it again"
        ) from error


def _erased(tensors: Mapping[str, Tensor], number: int, about: Mapping[str, Any]) -> Erased:
    names = sorted({name.split("/")[1] for name in tensors if name.startswith(f"{number}/")})
    made = {name: Transform(tensors[f"{number}/{name}/p"], tensors[f"{number}/{name}/q"]) for name in names}
    if not made:
        raise ValueError(f"erasure {number + 1} has no tensors")
    for name, one in made.items():
        if one.p.ndim != 2 or one.p.shape != one.q.shape or not (one.p.isfinite().all() and one.q.isfinite().all()):
            raise ValueError(f"P and Q of erasure {number + 1}, {name}, are no finite matrices of one shape")
    return Erased(made, {key: value for key, value in about.items() if key != "strength"}, float(about["strength"]))


def edited_weights(
    weights: Mapping[str, Tensor], streams: Sequence[Stream], transforms: Mapping[str, Transform]
) -> dict[str, Tensor]:
    """W T for all readers of streams that have a transform; the others as they are.

    Raises:
        ConfigError: numbers that the weights' format cannot hold.
    """
    found = dict(weights)
    for stream in streams:
        if stream.name in transforms:
            for name in stream.readers:
                found[name] = transforms[stream.name].on_weight(weights[name], stream.columns)
                check_held(found[name], name)
    return found


def check_held(weight: Tensor, name: str) -> None:
    """Raises ConfigError: an edited weight has left the range of its number format."""
    if not torch.isfinite(weight).all():
        kind = str(weight.dtype).removeprefix("torch.")
        raise ConfigError(
            f"the edit gives {name} numbers that {kind} cannot hold",
            expected=f"an edit within {torch.finfo(weight.dtype).max:.3g}",
            remedy="lower --strength or --erase-scale, or raise --lamb or --lam; or edit the model in float32",
        )


def partial_bytes(weights: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> bytes:
    """The file `partial`."""
    return _saved(weights, {"kind": KIND, "edits": json.dumps(about)} if about else {})


@dataclass(frozen=True)
class Lora:
    """Low-rank matrices for diffusers.

    Args:
        tensors: under the names that load_lora_weights looks for.
        rank: of all of them; smaller ones are filled up with zeros, so that their scale alpha / rank is 1.
        missed: |left out|_F / |T - I|_F by stream.
    """

    tensors: Mapping[str, Tensor]
    rank: int
    missed: Mapping[str, float]

    @property
    def nbytes(self) -> int:
        """Of all matrices."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def lora(
    weights: Mapping[str, Tensor],
    streams: Sequence[Stream],
    transforms: Mapping[str, Transform],
    part: str,
    rank: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Lora:
    """dW = (W P) Q^T for each reader: B = W P, A = Q^T, the least columns that T - I has, or `rank` of them.

    Args:
        weights: W of the base model.
        streams: what reads which text.
        transforms: by stream.
        part: unet or transformer, which begins the names.
        rank: most columns; the error is told.
        dtype: of the matrices.
    """
    short = {name: transform.compressed(rank) for name, transform in transforms.items()}
    most = max(1, *(transform.rank for transform, _ in short.values())) if short else 1
    tensors: dict[str, Tensor] = {}
    for stream in streams:
        if stream.name not in short:
            continue
        transform, _ = short[stream.name]
        for name in stream.readers:
            weight = weights[name]
            up = torch.zeros(weight.shape[0], most, dtype=dtype)
            down = torch.zeros(most, weight.shape[1], dtype=dtype)
            up[:, : transform.rank] = (weight[:, stream.columns].double() @ transform.p).to(dtype)
            down[: transform.rank, stream.columns] = transform.q.T.to(dtype)
            module = f"{part}.{name.removesuffix('.weight')}"
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    return Lora(tensors, most, {name: missed for name, (_, missed) in short.items()})


def lora_bytes(made: Lora) -> bytes:
    """The file `LORA`."""
    return _saved(made.tensors, {"format": "pt"})


def _saved(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    data: bytes = save({name: t.contiguous() for name, t in tensors.items()}, metadata={"format": "pt", **metadata})
    return data
