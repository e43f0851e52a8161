"""Captions with latents, opened; what samples are drawn for, and what turns latents into pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.captioned_config import CaptionedConfig
from generative.data.captioned_models import Published, autoencoder, embedded
from generative.data.captioned_prepare import CaptionManifest, model_of, prepare_captions
from generative.data.image_data import ImageData, NumberFile
from generative.data.image_prepare import Progress
from generative.data.order import Indices
from generative.data.sources import checked
from generative.method import DataFacts


class CaptionedLatents:
    """Latents and embeddings in files, by number. Picklable: another process maps the files by itself.

    Args:
        texts: float16[N, L, D].
        latents: float16[N, C, R, R]; None: captions alone.
        shape: of a latent that stands in there, of zeros.
    """

    def __init__(self, texts: NumberFile, latents: NumberFile | None, shape: tuple[int, ...]) -> None:
        self.texts, self.latents, self.shape = texts, latents, shape

    def __len__(self) -> int:
        return self.texts.count

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"sample": float32[B, C, R, R], "text": float16[B, L, D]} for numbers int64[B]."""
        rows = checked(indices, len(self))
        text = torch.from_numpy(np.asarray(self.texts.map()[rows]))
        if self.latents is None:
            return {"sample": torch.zeros(len(rows), *self.shape), "text": text}
        return {"sample": torch.from_numpy(np.asarray(self.latents.map()[rows])).float(), "text": text}


@dataclass(frozen=True)
class Captioned:
    """What belongs to samples that are latents.

    Args:
        model: whose autoencoder and text encoder they are of.
        texts: embeddings that samples are drawn for, one after the other, from the first again after the last.
        captions: these in words, as far as they are known.
        batch_size: samples that are drawn and decoded together.
        with_images: whether the data have images, not captions alone.
    """

    model: Published
    texts: NumberFile | NDArray[Any]
    captions: tuple[str, ...]
    batch_size: int
    with_images: bool = True

    def told(self, ids: Tensor) -> dict[str, Tensor]:
        """{"text": float16[B, L, D]} for sample numbers int64[B]."""
        texts = self.texts.map() if isinstance(self.texts, NumberFile) else self.texts
        return {"text": torch.from_numpy(np.asarray(texts[ids.cpu().numpy() % len(texts)]))}

    def in_words(self, count: int) -> list[str]:
        """Captions of the samples 0 .. count - 1, as far as they are known."""
        number = len(self.texts) if isinstance(self.texts, np.ndarray) else self.texts.count
        known = (i % number for i in range(count))
        return [self.captions[i] for i in known if i < len(self.captions)]

    def pixels(self, latents: Tensor) -> Tensor:
        """float32[B, 3, H, W] in [-1, 1] on the CPU, a few at a time."""
        decoder = autoencoder(self.model)
        return torch.cat([decoder.decode(some).cpu() for some in torch.split(latents, self.batch_size)])

    def of(self, prompts: Sequence[str]) -> Captioned:
        """The same for prompts."""
        return replace(self, texts=embedded(self.model, tuple(prompts)).numpy(), captions=tuple(prompts))


def open_captions(
    config: CaptionedConfig, *, progress: Progress | None = None, verify: bool = False, cache: Path | None = None
) -> ImageData:
    """Latents and captions to train on and held out; encoded first where that has not been done. Errors: there."""
    folder = prepare_captions(config, progress=progress, verify=verify, cache=cache)
    manifest = CaptionManifest.read(folder)
    model = model_of(config)
    latent = manifest.latent or _latent(config, model)
    files = {split: manifest.files(folder, split) for split in manifest.samples}
    sources = {split: CaptionedLatents(f["texts"], f.get("latents"), latent) for split, f in files.items()}
    drawn_for = "validation" if manifest.samples["validation"] else "train"
    captions = tuple(manifest.shown[drawn_for])
    captioned = Captioned(model, files[drawn_for]["texts"], captions, config.batch_size, bool(manifest.latent))
    counts = f"{manifest.samples['train']} to train on, {manifest.samples['validation']} held out"
    return ImageData(
        train=sources["train"],
        validation=sources["validation"],
        facts=DataFacts(sample_shape=latent, text_shape=(manifest.text[0], manifest.text[1])),
        description=f"{manifest.description}, {counts}",
        fingerprint=manifest.fingerprint,
        classes=None,
        kind="image",
        captioned=captioned,
    )


def _latent(config: CaptionedConfig, model: Published) -> tuple[int, ...]:
    """Shape of latents of `size`, where there are no images."""
    found = autoencoder(model)
    return found.channels, config.size // found.factor, config.size // found.factor
