"""The smallest model of captioned images."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.method import DataFacts
from generative.methods.text_to_image.config import TextToImageConfig
from generative.methods.text_to_image.method import TextToImage

FACTS = DataFacts(sample_shape=(1, 4, 4), classes=3)
SETTINGS = {
    "network": {"channels": [8, 8], "text_width": 8, "text_layers": 1, "text_heads": 2, "length": 6},
    "words": ["one", "Two", "three"],
    "templates": ["{}", "a photo of {}"],
    "sampling": {"steps": 3, "guidance": 2.0},
    "ema": [0.9],
}


def method_of(**changes: object) -> TextToImage:
    return TextToImage(TextToImageConfig.model_validate(SETTINGS | changes), FACTS)


def batch_of(count: int = 6, first: int = 0) -> dict[str, Tensor]:
    ids = torch.arange(first, first + count)
    sample = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))[ids] * 2 - 1
    return {"sample": sample, "label": ids % 3, "sample_id": ids, "position": ids, "valid": torch.ones(count).bool()}
