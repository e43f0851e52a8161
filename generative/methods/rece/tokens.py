"""Which token embeddings of two texts belong together: the three variants of UCE and RECE.

An encoder gives a text as one or more segments (SD3 puts CLIP's and T5's one after the other), each of L rows. Padding
counts as rows where the model reads it; where it is masked, only the first padding row is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Variant = Literal["suffix", "whole", "last"]


@dataclass(frozen=True)
class Segment:
    """Embeddings of one text by one encoder.

    Args:
        rows: float64[L, d], padding included; a pooled embedding is one row.
        valid: rows that are not padding, that is the sum of the attention mask.
        masked: padding is masked out, or too long to count by rows (T5): only its first row is used.
    """

    rows: Tensor
    valid: int
    masked: bool = False

    @property
    def last(self) -> int:
        """Place of the last content token, which the end token follows; 0 where there is no content.

        CLIP puts its start token there, T5 its end token: an empty guide then stands for that row, as in UCE's code.
        """
        return max(self.valid - 2, 0)


@dataclass(frozen=True)
class Prompt:
    """A text with its embeddings.

    Args:
        text: as given.
        segments: one or more, of one width d.
        content: tokens without start, end and padding.
        room: most tokens that the encoder reads; the rest of a longer text is cut off.
    """

    text: str
    segments: tuple[Segment, ...]
    content: int = 1
    room: int = 75

    @property
    def rows(self) -> Tensor:
        """All rows that count, float64[n, d]."""
        return torch.cat([used(segment) for segment in self.segments])

    def with_rows(self, rows: Sequence[Tensor]) -> Prompt:
        """The same places with other embeddings, one tensor a segment."""
        changed = zip(self.segments, rows, strict=True)
        return replace(self, segments=tuple(replace(segment, rows=new) for segment, new in changed))


@dataclass(frozen=True)
class Pairs:
    """Embeddings to be treated like others: `old` float64[n, d] is sent to where `new` float64[n, d] goes."""

    old: Tensor
    new: Tensor

    def merged(self, once: bool = False) -> Pairs:
        """Equal pairs as one row: times the root of their number, which gives the same sums; or counted `once`.

        The smaller number of rows makes an edit smaller and cheaper where padding rows repeat.
        """
        both, counts = torch.unique(torch.cat([self.old, self.new], 1), dim=0, return_counts=True)
        both = both if once else both * counts.to(both).sqrt()[:, None]
        width = self.old.shape[1]
        return Pairs(both[:, :width], both[:, width:])


def used(segment: Segment, valid: int | None = None) -> Tensor:
    """Rows that count: all, or of masked padding the first; `valid`: rows before it, where a partner has more."""
    end = (segment.valid if valid is None else valid) + 1
    return segment.rows[:end] if segment.masked else segment.rows


def pair(variant: Variant, old: Prompt, new: Prompt) -> Pairs:
    """Rows of two texts side by side.

    suffix: from the last content token on (so "van" of "van gogh" stays), with end and padding; L - F rows, F the later
        of the two places. An empty text begins with its start token.
    whole: all rows by position, start token and padding included.
    last: the last content token alone.
    """
    found = [_aligned(variant, pieces) for pieces in zip(old.segments, new.segments, strict=True)]
    return Pairs(torch.cat([rows[0] for rows in found]), torch.cat([rows[1] for rows in found]))


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """Several as one."""
    return Pairs(torch.cat([p.old for p in pairs]), torch.cat([p.new for p in pairs]))


def aligned(variant: Variant, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Rows of several texts that belong together, float64[n, d] each."""
    found = [_aligned(variant, pieces) for pieces in zip(*(p.segments for p in prompts), strict=True)]
    return [torch.cat([segment[i] for segment in found]) for i in range(len(prompts))]


def preserved(variant: Variant, prompt: Prompt) -> Tensor:
    """Rows of a text that is to stay as it is: the last content token, or (suffix, whole) all."""
    if variant == "last":
        return torch.cat([s.rows[s.last : s.last + 1] for s in prompt.segments])
    return prompt.rows


def _aligned(variant: Variant, segments: Sequence[Segment]) -> list[Tensor]:
    if variant == "last":
        return [s.rows[s.last : s.last + 1] for s in segments]
    valid = max(s.valid for s in segments)
    rows = [used(s, valid) for s in segments]
    if variant == "whole":
        return rows
    latest = max(s.last for s in segments)
    return [r[s.last : len(r) - (latest - s.last)] for s, r in zip(segments, rows, strict=True)]
