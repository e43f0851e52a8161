"""Weights in the layout of MDLM (kuleshov-group/mdlm) -> our `Transformer` of the family "mdlm".

Only models that are not told the time can be read: their adaLN layers see one input, the embedding of sigma = 0, and
what these make of it is stored. The vocabulary is the tokenizer's and the mask token, the last id; its row of the head
is left out, since it is never predicted (SUBS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import CheckpointError
from generative.nets.layouts import check_names, of_config, without_prefix
from generative.nets.transformer_config import TransformerConfig

PREFIX, ROTARY, HALF = "backbone.", "rotary_emb.inv_freq", 128
_MAP = tuple(f"sigma_map.mlp.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias"))
_FINAL = "output_layer.adaLN_modulation."
_OUTER = {
    "norm.weight": "output_layer.norm_final.weight",
    "head.weight": "output_layer.linear.weight",
    "head.bias": "output_layer.linear.bias",
    "embedding.weight": "vocab_embed.embedding",
}
_INNER = {
    "attention_norm.weight": "norm1.weight",
    "attention.qkv.weight": "attn_qkv.weight",
    "attention.out.weight": "attn_out.weight",
    "feed_forward_norm.weight": "norm2.weight",
    "up.weight": "mlp.0.weight",
    "up.bias": "mlp.0.bias",
    "down.weight": "mlp.2.weight",
    "down.bias": "mlp.2.bias",
}
_BLOCK_PARTS = (
    "attention_norm.shift",
    "attention_norm.scale",
    "attention_gate",
    "feed_forward_norm.shift",
    "feed_forward_norm.scale",
    "feed_forward_gate",
)


def mdlm_config(values: Mapping[str, Any], state: Mapping[str, Tensor]) -> TransformerConfig:
    """Sizes of a model: from its weights, and from its config.json what these do not tell (heads, length).

    Raises:
        CheckpointError: it is told the time, a size is not told, or tensors are missing or surplus.
    """
    if values.get("time_conditioning"):
        raise CheckpointError(
            "config.json: time_conditioning is true, and networks that are told the time are not read",
            "a model of MDLM's time-free form (time_conditioning false)",
            "take another checkpoint",
        )
    state = _plain(state)
    layers = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)), default=0)
    _check(state, layers)
    rows, width = state[_OUTER["embedding.weight"]].shape
    return TransformerConfig(
        family="mdlm",
        layers=layers,
        heads=of_config(values, ("n_heads", "num_attention_heads"), "the number of heads"),
        width=width,
        ff_width=state["blocks.0.mlp.0.weight"].shape[0],
        vocab_size=rows - 1,
        padding_multiple=1,
        max_length=of_config(values, ("model_length", "length", "max_position_embeddings"), "the longest sequence"),
    )


def from_mdlm(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Their state dict -> ours.

    Raises:
        CheckpointError: tensors are missing or surplus; all are listed.
    """
    state = _plain(state)
    _check(state, config.layers)
    ours = {name: state[theirs].clone() for name, theirs in _same(config.layers).items()}
    for name in ("head.weight", "head.bias"):
        ours[name] = ours[name][:-1].clone()
    seen = _at_no_noise(state)

    def constants(name: str, parts: int) -> list[Tensor]:
        found = F.linear(seen, state[name + "weight"], state[name + "bias"]).chunk(parts)
        return [part.clone() for part in found]

    ours["norm.shift"], ours["norm.scale"] = constants(_FINAL, 2)
    for i in range(config.layers):
        values = constants(f"blocks.{i}.adaLN_modulation.", len(_BLOCK_PARTS))
        ours |= {f"blocks.{i}.{part}": value for part, value in zip(_BLOCK_PARTS, values, strict=True)}
    return ours


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in without_prefix(state, PREFIX).items() if name != ROTARY}


def _same(layers: int) -> dict[str, str]:
    """Our name -> theirs, for the tensors that are the same in both (but for the mask token's row)."""
    return _OUTER | {
        f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}" for i in range(layers) for ours, theirs in _INNER.items()
    }


def _check(state: Mapping[str, Tensor], layers: int) -> None:
    modulations = [_FINAL, *(f"blocks.{i}.adaLN_modulation." for i in range(layers))]
    wanted = [*_same(layers).values(), *_MAP, *(name + kind for name in modulations for kind in ("weight", "bias"))]
    layout = f"weights in the layout of MDLM for a model of {layers} layer{'s' * (layers > 1)}"
    check_names(
        list(state), wanted, layout, "give the folder of one MDLM checkpoint with all its weights, or another --method"
    )


def _at_no_noise(state: Mapping[str, Tensor]) -> Tensor:
    """silu(mlp([cos, sin] of sigma = 0)), what adaLN layers are given."""
    angles = torch.zeros(HALF, dtype=state[_MAP[0]].dtype)
    hidden = F.silu(F.linear(torch.cat([angles.cos(), angles.sin()]), state[_MAP[0]], state[_MAP[1]]))
    return F.silu(F.linear(hidden, state[_MAP[2]], state[_MAP[3]]))
