"""Configuration of small text-to-image models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a photo of a {}",
    "{}",
    "an image of the digit {}",
    "a drawing of {}",
    "the number {}",
    "handwritten {}",
)


class TextUNetConfig(Config):
    """Sizes of the denoiser and of the text encoder, which are trained together."""

    channels: list[PositiveInt] = [16, 32]
    """Of each level of the U-Net, from the full resolution down; all but the first read the text. Multiples of 8."""
    layers: PositiveInt = 1
    """Residual blocks of a level."""
    head_width: PositiveInt = 8
    """Channels of an attention head."""
    text_width: int = Field(default=128, ge=8)
    """d: width of the text embeddings."""
    text_layers: PositiveInt = 2
    """Blocks of the text encoder."""
    text_heads: PositiveInt = 4
    """Attention heads of each."""
    length: int = Field(default=12, ge=3)
    """L: tokens of a caption, start, end and padding included."""

    @model_validator(mode="after")
    def _divisible(self) -> TextUNetConfig:
        if any(c % 8 or c % self.head_width for c in self.channels) or len(self.channels) < 2:
            raise combination(
                f"channels={self.channels} with head_width={self.head_width}",
                "two levels or more, with multiples of 8 and of head_width",
                "correct method.network.channels",
            )
        if self.text_width % self.text_heads:
            raise combination(
                f"text_width={self.text_width} with text_heads={self.text_heads}",
                "a multiple of text_heads",
                "correct method.network.text_width",
            )
        return self


class TextSamplingConfig(Config):
    """How samples are drawn: DDIM with classifier-free guidance."""

    steps: PositiveInt = 12
    """Network calls; guidance doubles them."""
    guidance: float = Field(default=2.0, ge=0)
    """w: eps(x, '') + w (eps(x, caption) - eps(x, ''))."""


class TextToImageConfig(Config):
    """A diffusion model of captioned images (noise prediction, DDPM's schedule), whose captions name classes."""

    name: Literal["text_to_image"] = "text_to_image"
    """Picks this method."""
    network: TextUNetConfig = TextUNetConfig()
    words: list[str] = list(DIGITS)
    """What the classes of the data are called, in their order."""
    templates: list[str] = list(TEMPLATES)
    """Captions, with {} for the word; each image is shown with all of them in turn, at random."""
    caption_dropout: float = Field(default=0.12, gt=0, lt=1)
    """Part of the training images whose caption is empty, for guidance."""
    levels: int = Field(default=1000, ge=2)
    """Noise levels of the schedule (variances from 1e-4 to 0.02, linear)."""
    sampling: TextSamplingConfig = TextSamplingConfig()
    ema: list[float] = [0.998]
    """Decay rates of the averages of the network, each in (0, 1)."""
    ema_ramp: float | None = Field(default=0.05, gt=0)
    """An average's half-life is at most this part of the steps so far; null: the same from the start."""
    init_from: str | None = None
    """Start the network from a run folder, checkpoint or export."""

    @model_validator(mode="after")
    def _consistent(self) -> TextToImageConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise combination(
                f"templates={self.templates}", "one or more, each with one {}", "correct method.templates"
            )
        if len(set(map(str.lower, self.words))) < len(self.words) or any(len(w.split()) != 1 for w in self.words):
            raise combination(f"words={self.words}", "different single words", "correct method.words")
        longest = max(len(template.split()) for template in self.templates)
        if longest + 2 > self.network.length:
            raise combination(
                f"a template of {longest} words with network.length={self.network.length}",
                "room for it, a start and an end token",
                f"set method.network.length={longest + 2}",
            )
        return self
