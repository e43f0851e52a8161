"""Windows of several documents: each is noised, seen and learned as if it were a sample by itself.

A level is drawn for each document (or each of its blocks), since levels belong to sequences (paper, section 2); what
tokens weigh, and that all of them count, stays the same. Blocks begin anew with a document.

Shapes: B samples, T places, S segments of a sample: documents, or blocks of documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from generative.method import Batch, Context
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.noise import exact_counts, stratified
from generative.nets.documents import first_places, positions_within


def documents_of(batch: Batch, lengths: Tensor | None) -> Tensor | None:
    """int64[B, T], the document of each input token; None where the data tell none. What is beyond `lengths` is a
    document of its own."""
    if "document" not in batch:
        return None
    document: Tensor = batch["document"][:, :-1]
    if lengths is None:
        return document
    places = torch.arange(document.shape[1], device=document.device)
    return torch.where(places < lengths[:, None], document, document.shape[1])


def segments_of(document: Tensor, block_size: int | None) -> Tensor:
    """int64[B, T], the number of each place's segment, 0, 1, .. along a sample."""
    first = first_places(document)
    if block_size is not None:
        first = first | (positions_within(document) % block_size == 0)
    return first.cumsum(1) - 1


@dataclass(frozen=True)
class Groups:
    """Places of windows gathered by segment, for what is drawn in each.

    Args:
        segment: int64[B, T], the number of each place's segment, 0, 1, .. along a sample; see `segments_of`.
    """

    segment: Tensor

    @cached_property
    def most(self) -> int:
        """S, segments of the sample that has most."""
        return int(self.segment[:, -1].max()) + 1

    @cached_property
    def rows(self) -> Tensor:
        """int64[B, T]: the row of each place in a table [B * S, longest]."""
        samples = torch.arange(len(self.segment), device=self.segment.device)
        return samples[:, None] * self.most + self.segment

    @cached_property
    def columns(self) -> Tensor:
        """int64[B, T]: the place within its segment."""
        return positions_within(self.segment)

    def split(self, values: Tensor, fill: float = 0) -> Tensor:
        """[B, T] -> [B * S, longest], filled up."""
        longest = int(self.columns.max()) + 1
        table = values.new_full((len(values) * self.most, longest), fill)
        table[self.rows, self.columns] = values
        return table

    def joined(self, table: Tensor) -> Tensor:
        """[B * S, longest] -> [B, T]."""
        return table[self.rows, self.columns]


def segment_times(config: MaskedDiffusionConfig, segment: Tensor, batch: Batch, context: Context) -> Tensor:
    """t[B, T] in [0, 1), one for each segment, uniform; spread over segments and the global batch unless iid."""
    if config.time_sampler == "iid":
        drawn = context.streams.uniform("time", batch["sample_id"], (segment.shape[1],))
        return drawn.gather(1, segment)
    offset = context.streams.shared_uniform("time").to(segment.device)
    t = stratified(offset, batch["position"], context.global_batch)
    return (t[:, None] + segment / (segment[:, -1:] + 1)) % 1.0


def segment_sizes(segment: Tensor) -> Tensor:
    """int64[B, T]: how many places the segment of each place has."""
    counts = torch.zeros_like(segment).scatter_add(1, segment, torch.ones_like(segment))
    return counts.gather(1, segment)


def mask_segments_exactly(uniform: Tensor, t: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
    """Masks exactly `exact_counts` of the tokens of each segment, each subset equally likely.

    Returns:
        mask bool[B, T] and level fp32[B, T], the share of the segment that is masked.
    """
    sizes = segment_sizes(segment)
    counts = exact_counts(t, sizes)
    # Sorted by segment, and within it by the uniforms: the rank in a segment is the place less the segment's first.
    order = uniform.argsort(dim=1, stable=True)
    order = order.gather(1, segment.gather(1, order).argsort(dim=1, stable=True))
    rank = torch.empty_like(order).scatter_(1, order, positions_within(segment))
    return rank < counts, counts / sizes
