"""Published masked diffusion checkpoints (nieshen/SMDM, `mdm-*.safetensors`) in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from generative.nets.smdm_checkpoints import read_published
from generative.nets.smdm_layout import to_smdm
from generative.nets.transformer_config import TransformerConfig


def import_checkpoint(
    path: Path, config: TransformerConfig | None = None
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Sizes and weights of network "net"; the sizes come from the file's name unless `config` gives them.

    Raises:
        CheckpointError: not readable, or not a masked diffusion model of these sizes.
    """
    return read_published(path, "mdm", config)


def export_checkpoint(state: Mapping[str, Tensor], config: TransformerConfig, path: Path) -> None:
    """Write weights of network "net" in the published layout."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in to_smdm(state, config).items()}, path)
