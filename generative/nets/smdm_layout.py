"""Weights of the released SMDM and ARM models (lit-gpt key names) to and from our `Transformer`.

Differences: their attention matrix interleaves groups (for each group its queries, then one key, then one value), ours
holds all queries, then all keys, then all values; their gate (w1) and up (w2) matrices are one matrix of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.nets.layouts import check_names
from generative.nets.transformer_config import TransformerConfig

_OUTER = {
    "embedding.weight": "transformer.wte.weight",
    "norm.weight": "transformer.ln_f.weight",
    "head.weight": "lm_head.weight",
}
_INNER = {
    "attention_norm.weight": "norm_1.weight",
    "feed_forward_norm.weight": "norm_2.weight",
    "attention.out.weight": "attn.proj.weight",
    "feed_forward.down.weight": "mlp.swiglu.w3.weight",
}


def _names(layers: int) -> dict[str, str]:
    """Our name -> theirs, for the tensors that are the same in both."""
    blocks = {
        f"blocks.{i}.{ours}": f"transformer.h.{i}.{theirs}" for i in range(layers) for ours, theirs in _INNER.items()
    }
    return _OUTER | blocks


def _qkv_rows(config: TransformerConfig) -> int:
    return (config.heads + 2 * config.groups) * config.head_width


def _split_groups(fused: Tensor, config: TransformerConfig) -> Tensor:
    """Interleaved by group -> all queries, all keys, all values."""
    each = config.heads // config.groups
    grouped = fused.view(config.groups, each + 2, config.head_width, -1)
    parts = grouped[:, :each], grouped[:, each], grouped[:, each + 1]
    return torch.cat([part.reshape(-1, fused.shape[1]) for part in parts])


def _join_groups(qkv: Tensor, config: TransformerConfig) -> Tensor:
    """All queries, all keys, all values -> interleaved by group."""
    sizes = [n * config.head_width for n in (config.heads, config.groups, config.groups)]
    parts = [part.view(config.groups, -1, config.head_width, qkv.shape[1]) for part in torch.split(qkv, sizes)]
    return torch.cat(parts, dim=1).reshape(qkv.shape)


def from_smdm(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Their state dict -> ours.

    Raises:
        CheckpointError: tensors are missing or surplus (all are listed), or of a shape that `config` does not have.
    """
    fused = ("attn.attn", "mlp.swiglu.w1", "mlp.swiglu.w2")
    wanted = [f"transformer.h.{i}.{part}.weight" for i in range(config.layers) for part in fused]
    check_names(
        list(state),
        [*_names(config.layers).values(), *wanted],
        f"weights in the SMDM layout for a model of {config.layers} layers",
        "give the size that the checkpoint was trained with, or take a checkpoint that SMDM published",
    )

    def convert() -> dict[str, Tensor]:
        ours = {name: state[theirs] for name, theirs in _names(config.layers).items()}
        for i in range(config.layers):
            block = f"transformer.h.{i}"
            ours[f"blocks.{i}.attention.qkv.weight"] = _split_groups(state[f"{block}.attn.attn.weight"], config)
            gate_up = [state[f"{block}.mlp.swiglu.{w}.weight"] for w in ("w1", "w2")]
            ours[f"blocks.{i}.feed_forward.gate_up.weight"] = torch.cat(gate_up)
        return ours

    return _checked(convert, config)


def _checked(convert: Callable[[], dict[str, Tensor]], config: TransformerConfig) -> dict[str, Tensor]:
    try:
        return convert()
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint's tensors do not fit {config.heads} heads and width {config.width}",
            expected=f"attention matrices of {_qkv_rows(config)} rows and {config.width} columns",
            remedy="give the size that the checkpoint was trained with",
        ) from error


def check_smdm(sizes: TransformerConfig) -> None:
    """Make sure that the released code computes the same with such a network's weights.

    Raises:
        CheckpointError: it is one of another family, or of constants that the released code does not have.
    """
    fixed = {"family": "llama", "rope_base": 1e4, "norm_eps": 1e-5}
    other = [f"{key}={getattr(sizes, key)}" for key, value in fixed.items() if getattr(sizes, key) != value]
    if other:
        raise CheckpointError(
            f"a network of {', '.join(other)}, which the released code of SMDM does not have",
            expected=", ".join(f"{key}={value}" for key, value in fixed.items()),
            remedy="leave out --layout, or use --layout llama where the family is llama",
        )


def to_smdm(state: Mapping[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Our state dict -> theirs."""
    theirs = {name: state[ours] for ours, name in _names(config.layers).items()}
    for i in range(config.layers):
        block = f"transformer.h.{i}"
        theirs[f"{block}.attn.attn.weight"] = _join_groups(state[f"blocks.{i}.attention.qkv.weight"], config)
        gate, up = state[f"blocks.{i}.feed_forward.gate_up.weight"].chunk(2)
        theirs[f"{block}.mlp.swiglu.w1.weight"], theirs[f"{block}.mlp.swiglu.w2.weight"] = gate.clone(), up.clone()
    return theirs
