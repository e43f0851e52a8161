"""First stages of latent-diffusion (KL and VQ autoencoders) as diffusers' AutoencoderKL and VQModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from generative.hub.parts import Part
from generative.hub.renaming import Renaming, matrix

RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
OUTER = ("conv_in", "conv_out")
UNUSED = ("loss.", "model_ema.")
"""Of a first stage that was saved alone: its losses' networks and averages."""


def to_autoencoder(state: Mapping[str, Tensor], where: str, side: int, scale: float) -> Part:
    """AutoencoderKL, or VQModel where there is a codebook.

    Args:
        state: of the first stage, without prefix.
        where: it comes from, for messages.
        side: of images.
        scale: what latents are multiplied by where they are denoised.

    Raises:
        CheckpointError: names that are not known here.
    """
    moved = Renaming(state, where)
    levels, layers = moved.count("encoder.down"), moved.count("encoder.down.0.block")
    if not levels:
        raise moved.unfit("no encoder")
    for half in ("encoder", "decoder"):
        _half(moved, half, levels)
    quantised = moved.has("quantize")
    for name in ("quant_conv", "post_quant_conv", *(["quantize.embedding"] if quantised else [])):
        moved.layer(name, name)
    attention = [moved.has(f"encoder.down.{level}.attn") for level in range(levels)]
    channels = [len(moved.tensor(f"encoder.down.{level}.block.0.conv1.weight")) for level in range(levels)]
    config: dict[str, Any] = {
        "in_channels": moved.tensor("encoder.conv_in.weight").shape[1],
        "out_channels": len(moved.tensor("decoder.conv_out.weight")),
        "down_block_types": [f"{'Attn' if told else ''}DownEncoderBlock2D" for told in attention],
        "up_block_types": [f"{'Attn' if told else ''}UpDecoderBlock2D" for told in reversed(attention)],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": moved.tensor("decoder.conv_in.weight").shape[1],
        "norm_num_groups": 32,
        "sample_size": side,
        "act_fn": "silu",
        "scaling_factor": scale,
        "mid_block_add_attention": moved.has("encoder.mid.attn_1"),
    }
    if quantised:
        count, width = moved.tensor("quantize.embedding.weight").shape
        config |= {"_class_name": "VQModel", "num_vq_embeddings": count, "vq_embed_dim": width}
    else:
        config |= {"_class_name": "AutoencoderKL"}
    return Part(config, moved.finished(UNUSED))


def _half(moved: Renaming, half: str, levels: int) -> None:
    for name in OUTER:
        moved.layer(f"{half}.{name}", f"{half}.{name}")
    moved.layer(f"{half}.norm_out", f"{half}.conv_norm_out")
    for old, new in (("block_1", "0"), ("block_2", "1")):
        moved.layers(RESIDUAL, f"{half}.mid.{old}", f"{half}.mid_block.resnets.{new}")
    if moved.has(f"{half}.mid.attn_1"):
        _attention(moved, f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0")
    way, blocks, resampler = (
        ("down", "down_blocks", "downsample") if half == "encoder" else ("up", "up_blocks", "upsample")
    )
    for level in range(levels):
        old = f"{half}.{way}.{level}"
        # the released decoder counts its levels from the images, diffusers' from the latents
        new = f"{half}.{blocks}.{level if half == 'encoder' else levels - 1 - level}"
        for block in range(moved.count(f"{old}.block")):
            moved.layers(RESIDUAL, f"{old}.block.{block}", f"{new}.resnets.{block}")
        for block in range(moved.count(f"{old}.attn")):
            _attention(moved, f"{old}.attn.{block}", f"{new}.attentions.{block}")
        if moved.has(f"{old}.{resampler}"):
            moved.layer(f"{old}.{resampler}.conv", f"{new}.{resampler}rs.0.conv")


def _attention(moved: Renaming, old: str, new: str) -> None:
    moved.layer(f"{old}.norm", f"{new}.group_norm")
    for theirs, ours in {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}.items():
        moved.layer(f"{old}.{theirs}", f"{new}.{ours}", matrix)
