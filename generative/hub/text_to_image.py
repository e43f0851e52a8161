"""Text-to-image models where they lie: folders of diffusers, single safetensors files, repositories on the hub.

Only headers are read until a matrix is asked for. Text encoders come as classes of a short list; no code of a model is
ever run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.hub.model_files import checked, component_config, opened
from generative.hub.text_encoders import read_encoders
from generative.methods.rece.encoders import TextEncoders
from generative.methods.rece.families import Stream, find_streams

POOLED_SDXL = 1280
"""Width of the pooled text of SDXL, where a file does not tell it."""


@dataclass(frozen=True)
class TextToImage:
    """A model's denoiser, with the places of its weights.

    Args:
        name: as the user gave it.
        folder: of the pipeline, with its text encoders; None: a file alone.
        part: unet or transformer.
        kind: class of the denoiser.
        config: of the denoiser.
        places: file of each weight, and its name there, by its name in diffusers.
        pipeline: class of the pipeline, "" for a file.
        revision: on the hub.
        text: pipeline with its text encoders, as the user gave it; None: its own.
        text_folder: that pipeline's folder.
    """

    name: str
    folder: Path | None
    part: str
    kind: str
    config: Mapping[str, Any]
    places: Mapping[str, tuple[Path, str]]
    pipeline: str = ""
    revision: str | None = None
    text: str | None = None
    text_folder: Path | None = None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all weights, from the headers."""
        found: dict[str, tuple[int, ...]] = {}
        for path, names in self._by_file(self.places).items():
            with opened(path) as file:
                found |= {ours: tuple(file.get_slice(theirs).get_shape()) for ours, theirs in names.items()}
        return found

    def streams(self) -> list[Stream]:
        """Where it reads text; errors as `find_streams`."""
        pipeline = self.folder or self.text_folder
        config = {} if pipeline is None else component_config(pipeline, "text_encoder_2")
        pooled = config.get("projection_dim")
        if pooled is None and self.folder is None and "add_embedding.linear_1.weight" in self.shapes:
            pooled = POOLED_SDXL
        return find_streams(self.kind, self.config, self.shapes, pooled)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Weights as they are stored.

        Raises:
            CheckpointError: a weight that is missing, quantised, NaN or infinite, or a file that cannot be read.
        """
        wanted = list(names)
        missing = [name for name in wanted if name not in self.places]
        if missing:
            raise CheckpointError(f"{self.name} has no weight {missing[0]!r}", "the same model", "check its version")
        found: dict[str, Tensor] = {}
        for path, stored in self._by_file({name: self.places[name] for name in wanted}).items():
            with opened(path) as file:
                found |= {ours: checked(path, theirs, file.get_tensor(theirs)) for ours, theirs in stored.items()}
        return {name: found[name] for name in wanted}

    def nbytes(self) -> int:
        """Of its files: the whole pipeline, or the file."""
        files = [path for path, _ in self.places.values()] if self.folder is None else self.folder.rglob("*")
        return sum(path.stat().st_size for path in set(files) if path.is_file())

    def fingerprint(self, streams: Iterable[Stream]) -> str:
        """Hash of all matrices that read text: names, formats and values."""
        digest = hashlib.sha256()
        for name in sorted({name for stream in streams for name in stream.readers}):
            weight = self.read([name])[name]
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(weight.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def encoders(self, text_folder: Path | None = None) -> TextEncoders:
        """Its text encoders; `text_folder`: a pipeline that has them, instead of `self.text_folder` and `self.folder`.

        Raises:
            CheckpointError: there are none, or of a class that is not known.
        """
        folder = text_folder or self.text_folder or self.folder
        if folder is None:
            raise CheckpointError(
                f"{self.name} is a file of weights without a tokenizer",
                "a pipeline's folder with text_encoder and tokenizer",
                "give one with --text (the pipeline that the file belongs to)",
            )
        return read_encoders(folder, self.kind, self.pipeline, self.streams()[0].width)

    @staticmethod
    def _by_file(places: Mapping[str, tuple[Path, str]]) -> dict[Path, dict[str, str]]:
        found: dict[Path, dict[str, str]] = {}
        for ours, (path, theirs) in places.items():
            found.setdefault(path, {})[ours] = theirs
        return found
