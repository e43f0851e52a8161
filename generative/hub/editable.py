"""Text-to-image pipelines whose images can be edited: Stable Diffusion's kind, and our own models of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError, ConfigError
from generative.hub.diffusion_priors import open_unet, with_text
from generative.hub.text_encoders import read_encoders
from generative.methods.rece.encoders import Encoder
from generative.methods.stsl.attention_control import Prompt, read_prompt
from generative.methods.stsl.prior import Prior


@dataclass(frozen=True)
class Editable:
    """A pipeline.

    Args:
        unet: UNet2DConditionModel.
        prior_of: embeddings [G, L, D] of G equal groups of rows -> prior.
        encoder: of texts.
        device: where it computes.
    """

    unet: Any
    prior_of: Callable[[Tensor], Prior]
    encoder: Encoder
    device: torch.device

    def embed(self, text: str) -> Tensor:
        """float32[1, L, D]."""
        return self.encoder([text]).last.float().to(self.device)

    def prompt(self, text: str) -> Prompt:
        """Words among tokens; raises ConfigError, also for words that the vocabulary has not."""
        return read_prompt(text, self._tokens, self.encoder.length)

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self.encoder.tokenizer
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        # CLIP's end is its unknown token as well, and CLIP's pieces cover all texts
        if tokenizer.unk_token_id in found and tokenizer.unk_token_id != tokenizer.eos_token_id:
            raise ConfigError(
                f"the prompt has {text!r}, which the model's vocabulary has not",
                "words that the model learned",
                "take words of its captions",
            )
        return found


def open_editable(folder: Path, device: torch.device) -> Editable:
    """Open it.

    Raises:
        CheckpointError: no pipeline, or one without text or with several text encoders.
        ConfigError: a prediction or schedule that is not known.
        ResourceError: diffusers is not installed.
    """
    unet, prior_of = open_unet(folder, device)
    encoders = sorted(path.name for path in folder.glob("text_encoder*") if path.is_dir())
    if encoders != ["text_encoder"] or not hasattr(unet.config, "cross_attention_dim"):
        raise CheckpointError(
            f"{folder} has {', '.join(encoders) or 'no text encoder'}",
            "a pipeline of Stable Diffusion's kind: a U-Net with attention to the text of one encoder",
            "give Stable Diffusion 1.x or 2.x, or a run of text_to_image that was exported with --layout diffusers",
        )
    encoder = read_encoders(folder, "UNet2DConditionModel").parts["text_encoder"]
    encoder.model.to(device).requires_grad_(False)
    return Editable(unet, lambda states: prior_of(with_text(unet, states)), encoder, device)
