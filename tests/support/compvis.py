"""Names of weights in the layout of CompVis (single files of SD 1.x and 2.x), from those of diffusers."""

from __future__ import annotations

RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def compvis_name(name: str) -> str:
    """The name of a weight of a U-Net of two levels with two layers each, in the layout of CompVis."""
    path, _, leaf = name.rpartition(".")
    if path in OUTSIDE:
        return f"{OUTSIDE[path]}.{leaf}"
    kind, *rest = path.split(".")
    if kind == "mid_block":
        part, number, *inner = rest
        place = "middle_block.1" if part == "attentions" else f"middle_block.{2 * int(number)}"
    else:
        block, part, number, *inner = rest
        i, j, down = int(block), int(number), kind == "down_blocks"
        if part == "downsamplers":
            return f"input_blocks.{3 * (i + 1)}.0.op.{leaf}"
        if part == "upsamplers":  # after the attention, which only the first of the two up blocks has
            return f"output_blocks.{3 * i + 2}.2.conv.{leaf}"
        side, at = ("input_blocks", 3 * i + j + 1) if down else ("output_blocks", 3 * i + j)
        place = f"{side}.{at}.{1 if part == 'attentions' else 0}"
    if part == "resnets":
        inner = [RESNETS[inner[0]]]
    return ".".join([place, *inner, leaf])
