"""Published masked diffusion checkpoints (nieshen/SMDM, `mdm-*.safetensors`); `hub.released` writes such files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from generative.nets.smdm_checkpoints import read_published
from generative.nets.transformer_config import TransformerConfig


def import_checkpoint(
    path: Path, config: TransformerConfig | None = None
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Sizes and weights of network "net"; the sizes come from the file's name unless `config` gives them.

    Raises:
        CheckpointError: not readable, or not a masked diffusion model of these sizes.
    """
    return read_published(path, "mdm", config)
