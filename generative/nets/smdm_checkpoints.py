"""Published SMDM checkpoints: the size is in the file's name, the weights are safetensors in the lit-gpt layout.

Names: mdm-1028M-3300e18-rsl-0.01-bs-1024.safetensors (masked diffusion), ar-170M-6e18.safetensors (autoregressive).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from generative.config import load_layers
from generative.errors import CheckpointError, ConfigError
from generative.nets.accounting import non_embedding_parameters
from generative.nets.smdm_layout import from_smdm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

Family = Literal["mdm", "ar"]

PUBLISHED_VOCAB = 32000
"""The Llama-2 tokenizer; the mask token has the next id."""


def published_size(name: str, family: Family) -> TransformerConfig:
    """Sizes of a published checkpoint by its file name, with the rotary tables in bf16 as it was trained.

    Raises:
        CheckpointError: the name is not one of `family`, or its size is not published.
    """
    match = re.match(rf"{family}-(\d+)M-", name)
    if match is None:
        raise CheckpointError(
            f"{name}: the size cannot be read from the file's name",
            expected=f"a name that begins like {family}-170M-100e18",
            remedy="keep the published name, or give the sizes in Python (generative.nets.smdm_layout.from_smdm)",
        )
    try:
        sizes = load_layers(f"sizes/{match[1]}m").values["method"]["network"]
    except ConfigError as error:
        raise CheckpointError(
            f"{name}: no published model has size {match[1]}M",
            expected="one of the sizes in configs/sizes",
            remedy="keep the published name, or give the sizes in Python (generative.nets.smdm_layout.from_smdm)",
        ) from error
    return TransformerConfig(**sizes, vocab_size=PUBLISHED_VOCAB, rope_table_dtype="bf16")


def published_name(sizes: TransformerConfig, family: Family, step: int) -> str:
    """File name of a model of ours, as `published_size` reads it where the size is a published one."""
    return f"{family}-{non_embedding_parameters(sizes) / 1e6:.0f}M-step_{step:06d}.safetensors"


def read_published(
    path: Path, family: Family, config: TransformerConfig | None = None
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Sizes and weights (our names) of a published checkpoint file; `config` overrides the sizes in its name.

    Raises:
        CheckpointError: not readable as safetensors, or not of the sizes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = config or published_size(path.name, family)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not readable as safetensors: {error}",
            expected="a published .safetensors file",
            remedy="correct the path, or download the file again",
        ) from error
    state = from_smdm(weights, config)
    _check_shapes(state, config, family)
    return config, state


def _check_shapes(state: dict[str, Tensor], config: TransformerConfig, family: Family) -> None:
    with torch.device("meta"):
        expected = Transformer(config, causal=family == "ar", mask_row=family == "mdm").state_dict()
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(state[name].shape)} in the checkpoint",
                expected=f"{tuple(tensor.shape)} for {config.layers} layers, width {config.width}",
                remedy="give the size that the checkpoint was trained with",
            )
