"""Small text-to-image models as folders in the layout of diffusers: a denoiser of pixels, so that there is no VAE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative import __version__
from generative.errors import CheckpointError
from generative.hub.folder import appearing, check_space, open_to_others
from generative.hub.model_files import read_json
from generative.hub.text_encoders import read_encoders
from generative.method import DataFacts
from generative.methods.rece.encoders import Encoder
from generative.methods.text_to_image.captions import Captions
from generative.methods.text_to_image.config import TextSamplingConfig, TextToImageConfig
from generative.methods.text_to_image.network import build_network, schedule
from generative.methods.text_to_image.sampler import Predict, ddim, predictor

PIPELINE = "PixelTextToImagePipeline"
"""Class in model_index.json; diffusers has none without a VAE for CLIP."""
INDEX = "model_index.json"


def write_pipeline(
    folder: Path, config: TextToImageConfig, facts: DataFacts, state: Mapping[str, Tensor]
) -> list[Path]:
    """unet, text_encoder, tokenizer, scheduler and model_index.json; complete or not at all.

    Args:
        folder: to be made.
        config: the method's.
        facts: of the data.
        state: weights of the network.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    net = build_network(config, facts)
    net.load_state_dict(state)
    net.eval()
    check_space(folder, sum(tensor.nbytes for tensor in state.values()))
    parts: dict[str, Any] = {"unet": net.unet, "text_encoder": net.text}
    parts |= {"tokenizer": Captions.of(config).tokenizer(), "scheduler": schedule(config.levels)}
    index: dict[str, Any] = {"_class_name": PIPELINE, "generative_version": __version__}
    index |= {name: [type(part).__module__.partition(".")[0], type(part).__name__] for name, part in parts.items()}
    index["sampling"] = config.sampling.model_dump(mode="json")
    with appearing(folder, force=False) as partial:
        for name, part in parts.items():
            part.save_pretrained(partial / name)
        open_to_others(partial)
        (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return sorted(folder.iterdir())


@dataclass(frozen=True)
class PixelPipeline:
    """A model of such a folder.

    Args:
        unet: UNet2DConditionModel.
        encoder: texts to embeddings.
        scheduler: DDIMScheduler.
        sampling: steps and guidance.
    """

    unet: Any
    encoder: Encoder
    scheduler: Any
    sampling: TextSamplingConfig

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, R, R] of a sample."""
        side = int(self.unet.config.sample_size)
        return int(self.unet.config.in_channels), side, side

    def embed(self, texts: Sequence[str]) -> Tensor:
        """float32[N, L, d]."""
        return self.encoder(texts).last.float()

    def draw(self, states: Tensor, noise: Tensor) -> Tensor:
        """Images float32[N, C, R, R] from embeddings [N, L, d] and noise [N, C, R, R]."""
        return self.draw_with(predictor(self.unet), states, noise)

    def draw_with(self, predict: Predict, states: Tensor, noise: Tensor) -> Tensor:
        """The same by another network."""
        return ddim(predict, noise, states, self.embed([""])[0], self.scheduler, self.sampling)

    def image(self, text: str, seed: int, guidance: float | None = None) -> Tensor:
        """One image of a text, [C, R, R]: the same noise for the same seed; guidance: None for the model's own."""
        return self.image_of(self.embed([text])[0], seed, guidance)

    def image_of(self, states: Tensor, seed: int, guidance: float | None = None) -> Tensor:
        """The same of embeddings [L, d]."""
        noise = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(seed))
        sampling = (
            self.sampling if guidance is None else TextSamplingConfig(steps=self.sampling.steps, guidance=guidance)
        )
        return replace(self, sampling=sampling).draw(states[None], noise)[0]


def read_pipeline(folder: Path) -> PixelPipeline:
    """What `write_pipeline` wrote.

    Raises:
        CheckpointError: another layout, or files that cannot be read.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel

    index = read_json(folder / INDEX) or {}
    if index.get("_class_name") != PIPELINE:
        raise CheckpointError(
            f"{folder} holds a {index.get('_class_name') or 'model of no known class'}",
            f"a {PIPELINE}, as `generative export --layout diffusers` writes it",
            "give such a folder",
        )
    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True).eval().requires_grad_(False)
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}", "a whole export", "export the run again") from error
    encoder = read_encoders(folder, "UNet2DConditionModel").parts["text_encoder"]
    return PixelPipeline(unet, encoder, scheduler, TextSamplingConfig.model_validate(index.get("sampling") or {}))
