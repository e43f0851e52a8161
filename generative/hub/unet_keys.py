"""U-Nets of guided-diffusion (ADM) and latent-diffusion, without cross-attention, as diffusers' UNet2DModel.

Both have the same names. What a file does not tell (whether a block of a level halves the side, how wide a head is) is
read off the other half of the network, or given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.hub.parts import Part
from generative.hub.renaming import Renaming, matrix

CLASS = "UNet2DModel"
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
FIXED: Mapping[str, str] = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class _Layout:
    """What the names tell: levels, residual blocks of a level, levels with attention, residual resampling."""

    levels: int
    blocks: int
    attention: tuple[bool, ...]
    residual: bool

    def input(self, level: int, block: int) -> str:
        return f"input_blocks.{1 + level * (self.blocks + 1) + block}"

    def output(self, level: int, block: int) -> str:
        """Levels are counted as on the way up: from the lowest."""
        return f"output_blocks.{level * (self.blocks + 1) + block}"


def to_unet(state: Mapping[str, Tensor], where: str, side: int, head_width: int) -> Part:
    """The network for diffusers.

    Args:
        state: of the U-Net, without prefix.
        where: it comes from, for messages.
        side: of what is denoised.
        head_width: channels of an attention head.

    Raises:
        CheckpointError: names that are not known here, cross-attention, heads that do not divide the channels.
    """
    moved = Renaming(state, where)
    if any("transformer_blocks" in name for name in state):
        raise moved.unfit("a network with cross-attention (text-to-image, or conditioned otherwise)")
    layout = _layout(moved)
    _move(moved, layout, head_width)
    classes = None
    if moved.has("label_emb"):
        moved.layer("label_emb", "class_embedding")
        classes = len(moved.tensor("label_emb.weight"))
    config = _config(moved, layout, side, head_width) | {"num_class_embeds": classes}
    return Part(config, moved.finished())


def _layout(moved: Renaming) -> _Layout:
    outputs = moved.count("output_blocks")
    ups = [block for block in range(outputs) if _resampler(moved, block)]
    levels = len(ups) + 1
    blocks = outputs // levels - 1
    wanted = [(level + 1) * (blocks + 1) - 1 for level in range(levels - 1)]
    if blocks < 1 or outputs % levels or ups != wanted or moved.count("input_blocks") != levels * (blocks + 1):
        raise moved.unfit("levels of unequal numbers of blocks")
    bare = _Layout(levels, blocks, (), any(moved.has(f"{_resampler(moved, up)}.in_layers") for up in ups))
    attention = tuple(moved.has(f"{bare.input(level, 0)}.1.qkv") for level in range(levels))
    return _Layout(levels, blocks, attention, bare.residual)


def _resampler(moved: Renaming, block: int) -> str:
    """What doubles the side at the end of an output block: its last part, unless that is the first or attention; else
    nothing, ""."""
    last = moved.count(f"output_blocks.{block}") - 1
    name = f"output_blocks.{block}.{last}"
    return name if last and (moved.has(f"{name}.in_layers") or moved.has(f"{name}.conv")) else ""


def _move(moved: Renaming, layout: _Layout, head_width: int) -> None:
    for old, new in FIXED.items():
        moved.layer(old, new)
    for level in range(layout.levels):
        for block in range(layout.blocks):
            _block(moved, layout.input(level, block), f"down_blocks.{level}", block, head_width)
        if level + 1 < layout.levels:
            place = f"{layout.input(level, layout.blocks)}.0"
            if layout.residual:
                moved.layers(RESIDUAL, place, f"down_blocks.{level}.downsamplers.0")
            else:
                moved.layer(f"{place}.op", f"down_blocks.{level}.downsamplers.0.conv")
        for block in range(layout.blocks + 1):
            _block(moved, layout.output(level, block), f"up_blocks.{level}", block, head_width)
        if level + 1 < layout.levels:
            place = _resampler(moved, level * (layout.blocks + 1) + layout.blocks)
            if layout.residual:
                moved.layers(RESIDUAL, place, f"up_blocks.{level}.upsamplers.0")
            else:
                moved.layer(f"{place}.conv", f"up_blocks.{level}.upsamplers.0.conv")
    for old, new in (("0", "0"), ("2", "1")):
        moved.layers(RESIDUAL, f"middle_block.{old}", f"mid_block.resnets.{new}")
    _attention(moved, "middle_block.1", "mid_block.attentions.0", head_width)


def _block(moved: Renaming, old: str, new: str, number: int, head_width: int) -> None:
    """A residual block, and attention after it where there is some."""
    moved.layers(RESIDUAL, f"{old}.0", f"{new}.resnets.{number}")
    if moved.has(f"{old}.1.qkv"):
        _attention(moved, f"{old}.1", f"{new}.attentions.{number}", head_width)


def _attention(moved: Renaming, old: str, new: str, width: int) -> None:
    """qkv has its rows by head, and in each head queries, keys, values."""
    moved.layer(f"{old}.norm", f"{new}.group_norm")
    moved.layer(f"{old}.proj_out", f"{new}.to_out.0", matrix)
    channels = len(moved.tensor(f"{old}.norm.weight"))
    if channels % width:
        raise moved.unfit(f"{old} has {channels} channels, which heads of {width} do not divide (--set head_width=...)")
    for kind in ("weight", "bias"):
        rows = matrix(moved.take(f"{old}.qkv.{kind}"))
        rows = rows.reshape(channels // width, 3, width, *rows.shape[1:])
        for place, name in enumerate(("to_q", "to_k", "to_v")):
            moved.found[f"{new}.{name}.{kind}"] = rows[:, place].flatten(0, 1).contiguous()


def _config(moved: Renaming, layout: _Layout, side: int, head_width: int) -> dict[str, Any]:
    first = moved.tensor("input_blocks.0.0.weight")
    channels = [len(moved.tensor(f"{layout.input(n, 0)}.0.out_layers.0.weight")) for n in range(layout.levels)]
    embedding = len(moved.tensor("middle_block.0.emb_layers.1.bias"))
    down, up = (
        [f"Attn{way}Block2D" if told else f"{plain}Block2D" for told in layout.attention]
        for way, plain in (
            ("Down", "ResnetDownsample" if layout.residual else "Down"),
            ("Up", "ResnetUpsample" if layout.residual else "Up"),
        )
    )
    return {
        "_class_name": CLASS,
        "sample_size": side,
        "in_channels": first.shape[1],
        "out_channels": len(moved.tensor("out.2.weight")),
        "down_block_types": down,
        "up_block_types": up[::-1],
        "block_out_channels": channels,
        "layers_per_block": layout.blocks,
        "downsample_type": "resnet" if layout.residual else "conv",
        "upsample_type": "resnet" if layout.residual else "conv",
        "attention_head_dim": head_width,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,  # with scale_shift diffusers has none in the middle otherwise
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if embedding == 2 * channels[-1] else "default",
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "act_fn": "silu",
    }


def prefixed(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, torch.Tensor)
    }
