"""Which text is trained on and which is held out, and in which pieces it is tokenised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from generative.data.documents import Corpus, Span
from generative.data.order import permute

PIECE = 4 << 20
"""Longer documents are tokenised in pieces of about so many bytes, to bound memory."""


def split(corpus: Corpus, fraction: float) -> tuple[list[Span], list[Span]]:
    """Training and held-out spans.

    Of several documents about `fraction` of all bytes is held out, whole documents picked by a fixed shuffle (at least
    one, and never all). Of a single document its last part is held out.
    """
    sizes = corpus.sizes()
    filled = np.flatnonzero(sizes)
    if len(filled) == 0:
        return [], []
    if len(filled) == 1:
        return _split_tail(corpus, int(filled[0]), int(sizes[filled[0]]), fraction)
    held_out = np.zeros(len(sizes), dtype=bool)
    held_out[_pick(filled, sizes, fraction)] = True
    return whole(corpus, ~held_out), whole(corpus, held_out)


def whole(corpus: Corpus, chosen: NDArray[np.bool_] | None = None) -> list[Span]:
    """All documents that have text (and are chosen), entire."""
    sizes = corpus.sizes()
    filled = sizes > 0 if chosen is None else (sizes > 0) & chosen
    return [
        Span(i, 0, size, True) for i, size in zip(np.flatnonzero(filled).tolist(), sizes[filled].tolist(), strict=True)
    ]


def _pick(documents: NDArray[np.int64], sizes: NDArray[np.int64], fraction: float) -> list[int]:
    """Documents with together at most `fraction` of the bytes, or the smallest one where each alone has more."""
    room = fraction * float(sizes.sum())
    picked = []
    for i in documents[permute(np.arange(len(documents)), len(documents), seed=0, epoch=1)].tolist():
        if sizes[i] <= room:
            picked.append(i)
            room -= float(sizes[i])
    return picked or [int(documents[np.argmin(sizes[documents])])]


def _split_tail(corpus: Corpus, document: int, size: int, fraction: float) -> tuple[list[Span], list[Span]]:
    cut = _boundary(corpus, document, int(size * (1 - fraction)))
    head, tail = Span(document, 0, cut, False), Span(document, cut, size, True)
    return ([head] if cut else []), ([tail] if cut < size else [])


def _boundary(corpus: Corpus, document: int, position: int) -> int:
    """The first place from `position` on where a character of UTF-8 begins."""
    following = corpus.read(document, position, position + 4)
    return position + next((i for i, byte in enumerate(following) if byte & 0xC0 != 0x80), len(following))


def _after_newline(corpus: Corpus, document: int, position: int) -> int:
    """The first place from `position` on where a line begins, if it is near, else where a character begins."""
    newline = corpus.read(document, position, position + (64 << 10)).find(b"\n")
    return position + newline + 1 if newline >= 0 else _boundary(corpus, document, position)


def pieces(corpus: Corpus, span: Span, size: int = PIECE) -> Iterator[Span]:
    """The span cut at line ends into pieces of about `size` bytes."""
    start = span.start
    while span.stop - start > size:
        stop = _after_newline(corpus, span.document, start + size)
        if stop >= span.stop:
            break
        yield Span(span.document, start, stop, False)
        start = stop
    yield Span(span.document, start, span.stop, span.ends)


def cut_into_shards(corpus: Corpus, spans: Sequence[Span], shard_bytes: int) -> list[list[Span]]:
    """Spans, cut into pieces and grouped in order into shards of about `shard_bytes` of text."""
    shards: list[list[Span]] = []
    room = 0
    for span in spans:
        for piece in pieces(corpus, span, min(PIECE, shard_bytes)):
            if room <= 0:
                shards.append([])
                room = shard_bytes
            shards[-1].append(piece)
            room -= piece.stop - piece.start
    return shards


def batches(spans: Sequence[Span], size: int = PIECE) -> Iterator[list[Span]]:
    """Consecutive spans in groups of about `size` bytes, at most 1000 a group."""
    rest = iter(spans)
    while group := list(islice(rest, 1)):
        taken = group[0].stop - group[0].start
        while taken < size and len(group) < 1000 and (span := next(rest, None)) is not None:
            group.append(span)
            taken += span.stop - span.start
        yield group
