"""Where models read text: the matrices that an edit changes, for each kind of denoiser, by the names in diffusers.

A stream is one kind of text embedding with one transform: the token sequence, and the pooled vector where there is one.
Joint transformers (SD3, Flux) let text and image change each other in their blocks; only the projection before them
reads the embeddings themselves. Its bias stays out of the edit: W (T h) + b needs no target with b in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from generative.errors import CheckpointError, ConfigError
from generative.registry import Registry

Shapes = Mapping[str, tuple[int, ...]]
"""Names of a denoiser's weights, and their shapes."""

PUBLISHED = {
    "label_emb.0.0.": "add_embedding.linear_1.",
    "y_embedder.mlp.0.": "time_text_embed.text_embedder.linear_1.",
    "txt_in.": "context_embedder.",
    "vector_in.in_layer.": "time_text_embed.text_embedder.linear_1.",
}
"""Beginnings of names in single files: of SDXL, SD3, and twice of Flux."""
CROSS_ATTENTION = re.compile(r"(^|\.)attn2\.(to_k|to_v|to_kv)\.weight$")


@dataclass(frozen=True)
class Stream:
    """A text embedding of one kind, and what reads it.

    Args:
        name: text (tokens) or pooled.
        width: d.
        readers: names of matrices [o, d], or more columns, of which the first d read the text.
        argument: of the denoiser's forward, that brings it; text_embeds is within added_cond_kwargs.
    """

    name: str
    width: int
    readers: tuple[str, ...]
    argument: str

    @property
    def columns(self) -> slice:
        """That read the text."""
        return slice(0, self.width)


def find_streams(kind: str, config: Mapping[str, Any], shapes: Shapes, pooled: int | None = None) -> list[Stream]:
    """What a denoiser reads text by.

    Args:
        kind: its class in diffusers.
        config: its config.json.
        shapes: of all its weights.
        pooled: width of SDXL's pooled embedding, whose columns come before those of sizes and crops.

    Raises:
        ConfigError: a class that is not known.
        CheckpointError: a denoiser without cross-attention or text projection, or weights in an unknown layout.
    """
    streams = DENOISERS[kind](config, shapes, pooled)
    for stream in streams:
        for name in stream.readers:
            if len(shapes[name]) != 2 or shapes[name][1] < stream.width:
                raise CheckpointError(
                    f"{name} has the shape {list(shapes[name])}",
                    f"a matrix with {stream.width} columns or more",
                    "give the model as it was published, not quantised or otherwise packed",
                )
    return streams


def chosen(stream: Stream, include: str | None, exclude: str | None) -> Stream:
    """A stream with those of its readers that match `include` and not `exclude` (regular expressions of their names).

    Raises:
        ConfigError: a wrong expression, or nothing is left.
    """
    try:
        kept = [n for n in stream.readers if re.search(include or "", n) and not (exclude and re.search(exclude, n))]
    except re.error as error:
        raise ConfigError(f"{error.pattern!r} is no regular expression: {error}", "one", "correct it") from error
    if not kept:
        raise ConfigError(
            f"no matrix that reads text matches {include!r} without {exclude!r}",
            expected=f"a part of names such as {stream.readers[0]}",
            remedy="correct the expressions (to_v: values only)",
        )
    return Stream(stream.name, stream.width, tuple(kept), stream.argument)


def chosen_streams(streams: Iterable[Stream], include: str | None, exclude: str | None) -> list[Stream]:
    """Of all streams, those with something left: an expression for attention layers need not match the pooled text's.

    Raises:
        ConfigError: as `chosen`, for the token sequence.
    """
    found = []
    for stream in streams:
        try:
            found.append(chosen(stream, include, exclude))
        except ConfigError:
            if stream.name == "text":
                raise
    return found


def _unet(config: Mapping[str, Any], shapes: Shapes, pooled: int | None) -> list[Stream]:
    """SD 1.x, 2.x, SDXL: keys and values of every attn2 (or the projection before them); SDXL: pooled text."""
    projection = "encoder_hid_proj.weight"
    readers = [projection] if projection in shapes else [name for name in shapes if CROSS_ATTENTION.search(name)]
    if not readers:
        raise _textless("no attn2.to_k and attn2.to_v")
    streams = [_stream("text", readers, shapes, "encoder_hidden_states")]
    added = "add_embedding.linear_1.weight"
    if config.get("addition_embed_type") == "text_time" and added in shapes and pooled:
        streams.append(Stream("pooled", pooled, (added,), "text_embeds"))
    return streams


def _joint(config: Mapping[str, Any], shapes: Shapes, pooled: int | None) -> list[Stream]:
    """SD3, Flux: before the projections of tokens and of the pooled vector."""
    tokens, other = "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"
    if tokens not in shapes:
        raise _textless(f"no {tokens}")
    streams = [_stream("text", [tokens], shapes, "encoder_hidden_states")]
    return streams + ([_stream("pooled", [other], shapes, "pooled_projections")] if other in shapes else [])


def _caption(config: Mapping[str, Any], shapes: Shapes, pooled: int | None) -> list[Stream]:
    """PixArt: before the caption projection; without one, keys and values of every attn2."""
    name = "caption_projection.linear_1.weight"
    readers = [name] if name in shapes else [n for n in shapes if CROSS_ATTENTION.search(n)]
    if not readers:
        raise _textless(f"neither {name} nor attn2")
    return [_stream("text", readers, shapes, "encoder_hidden_states")]


DENOISERS: Registry[Callable[[Mapping[str, Any], Shapes, int | None], list[Stream]]] = Registry(
    "class of denoiser",
    {
        "UNet2DConditionModel": _unet,
        "SD3Transformer2DModel": _joint,
        "FluxTransformer2DModel": _joint,
        "PixArtTransformer2DModel": _caption,
        "Transformer2DModel": _caption,
    },
)


def _stream(name: str, readers: list[str], shapes: Shapes, argument: str) -> Stream:
    widths = sorted({shapes[reader][-1] for reader in readers})
    if len(widths) > 1:
        raise CheckpointError(
            f"matrices that read text have {' and '.join(map(str, widths))} columns",
            "one width for all of them",
            "give a model whose matrices read one kind of text",
        )
    return Stream(name, widths[0], tuple(readers), argument)


def _textless(found: str) -> CheckpointError:
    return CheckpointError(
        f"the denoiser has {found}: it reads no text",
        "a text-to-image model with cross-attention or a text projection",
        "give such a model (SD 1.x, 2.x, SDXL, SD3, Flux, PixArt)",
    )


def to_diffusers(name: str) -> str:
    """Name in diffusers of a reader in a single file as published (SD 1.x, 2.x, SDXL; SD3, Flux); others as they are.

    input_blocks.i.1 is down_blocks.(i-1)//3, attentions.(i-1)%3; output_blocks.i.1 is up_blocks.i//3, attentions.i%3.
    """
    name = name.removeprefix("model.diffusion_model.")
    for theirs, ours in PUBLISHED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if found := re.match(r"input_blocks\.(\d+)\.1\.(.+)", name):
        i = int(found[1]) - 1
        return f"down_blocks.{i // 3}.attentions.{i % 3}.{found[2]}"
    if found := re.match(r"output_blocks\.(\d+)\.1\.(.+)", name):
        i = int(found[1])
        return f"up_blocks.{i // 3}.attentions.{i % 3}.{found[2]}"
    if found := re.match(r"middle_block\.1\.(.+)", name):
        return f"mid_block.attentions.0.{found[1]}"
    return name.replace(".base_layer.weight", ".weight")
