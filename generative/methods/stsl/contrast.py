"""A contrastive term for edits: patches of the edit should resemble the source's at their place, not elsewhere.

The network, its layers and the temperature of the paper are not known; this is a reconstruction (PatchNCE).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import CheckpointError, ConfigError

Features = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] in [-1, 1] -> features of N patches [B, N, D], differentiable."""


def patch_contrast(features: Features, source: Tensor, tau: float = 0.07) -> Callable[[Tensor], Tensor]:
    """-mean_n log softmax_m(cos(f_n(x), f_m(source)) / tau)[n], [B]: 0 where each patch finds its own place at once.

    Args:
        features: frozen.
        source: [B, C, H, W].
        tau: above 0.

    Raises:
        ConfigError: tau not above 0.
    """
    if not tau > 0:
        raise ConfigError(f"tau={tau:g}", "above 0", "give 0.07")
    with torch.no_grad():
        wanted = F.normalize(features(source), dim=-1)

    def loss(x: Tensor) -> Tensor:
        alike = F.normalize(features(x), dim=-1) @ wanted.transpose(1, 2) / tau
        return -alike.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(1)

    return loss


def clip_features(folder: Path, device: torch.device | str = "cpu") -> Features:
    """Patch features of a CLIP vision encoder in a local folder of transformers (safetensors).

    Raises:
        CheckpointError: no such weights; ResourceError is left to the import.
    """
    from transformers import CLIPVisionModel

    try:
        net: Any = CLIPVisionModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise CheckpointError(
            f"{folder} holds no vision encoder of CLIP: {first}", "config.json and safetensors", "correct --contrast"
        ) from error
    net = net.to(device).eval().requires_grad_(False)
    side = int(net.config.image_size)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], device=device).reshape(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711], device=device).reshape(3, 1, 1)

    def features(x: Tensor) -> Tensor:
        x = F.interpolate(x.expand(-1, 3, -1, -1).float(), (side, side), mode="bilinear", antialias=True)
        found: Tensor = net(pixel_values=((x + 1) / 2 - mean) / deviation).last_hidden_state[:, 1:]
        return found

    return features
