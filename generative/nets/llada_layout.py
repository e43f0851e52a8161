"""Weights in the layout of LLaDA (ML-GSAI/LLaDA) -> our `Transformer`, which computes the same: Llama's blocks,
full attention, half-split rotary positions, no biases.

Their mask token is a row within the vocabulary (126336 of 126464), and the head has a row for it. Ours comes after the
vocabulary: the row is copied there, and the id is forbidden to the sampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.nets.layouts import check_names, of_config, without_prefix
from generative.nets.transformer_config import TransformerConfig

PREFIX = "model.transformer."
_OUTER = {"embedding.weight": "wte.weight", "norm.weight": "ln_f.weight", "head.weight": "ff_out.weight"}
_INNER = {
    "attention_norm.weight": ("attn_norm",),
    "attention.qkv.weight": ("q_proj", "k_proj", "v_proj"),
    "attention.out.weight": ("attn_out",),
    "feed_forward_norm.weight": ("ff_norm",),
    "feed_forward.gate_up.weight": ("ff_proj", "up_proj"),
    "feed_forward.down.weight": ("ff_out",),
}


def llada_config(values: Mapping[str, Any], rows: int) -> tuple[TransformerConfig, int]:
    """Sizes and mask id of a config.json, in LLaDA's names or Llama's; `rows`: of the embedding.

    Raises:
        CheckpointError: a size is not told.
    """
    heads = of_config(values, ("n_heads", "num_attention_heads"), "the number of heads")
    groups = ("n_kv_heads", "num_key_value_heads", "n_heads", "num_attention_heads")
    mask = of_config(values, ("mask_token_id",), "the mask token")
    if mask >= rows:
        raise CheckpointError(
            f"config.json: mask_token_id {mask} is none of the {rows} rows of the embedding",
            "an id below it",
            "take the config.json that was published with the weights",
        )
    config = TransformerConfig(
        layers=of_config(values, ("n_layers", "num_hidden_layers"), "the number of layers"),
        heads=heads,
        kv_groups=of_config(values, groups, "the number of key/value heads"),
        width=of_config(values, ("d_model", "hidden_size"), "the width"),
        ff_width=of_config(values, ("mlp_hidden_size", "intermediate_size"), "the width of the feed-forward"),
        vocab_size=rows,
        padding_multiple=1,
        max_length=of_config(values, ("max_sequence_length", "max_position_embeddings"), "the longest sequence"),
        rope_base=float(values.get("rope_theta", 1e4)),
        norm_eps=float(values.get("rms_norm_eps", values.get("layer_norm_eps", 1e-5))),
    )
    return config, mask


def from_llada(state: Mapping[str, Tensor], config: TransformerConfig, mask_id: int) -> dict[str, Tensor]:
    """Their state dict -> ours.

    Raises:
        CheckpointError: tensors are missing or surplus; all are listed.
    """
    state = without_prefix(state, PREFIX)
    names = {ours: (theirs,) for ours, theirs in _OUTER.items()} | {
        f"blocks.{i}.{ours}": tuple(f"blocks.{i}.{part}.weight" for part in parts)
        for i in range(config.layers)
        for ours, parts in _INNER.items()
    }
    layout = f"weights in the layout of LLaDA for a model of {config.layers} layers"
    wanted = [name for parts in names.values() for name in parts]
    check_names(list(state), wanted, layout, "take the weights and the config.json that belong together")
    ours = {name: torch.cat([state[part] for part in parts]) for name, parts in names.items()}
    embedding = ours["embedding.weight"]
    ours["embedding.weight"] = torch.cat([embedding, embedding[mask_id : mask_id + 1]])
    return ours
