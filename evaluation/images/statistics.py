"""What is kept of a set of images: parts are scored anywhere and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from evaluation.images.classes import ClassStatistics
from evaluation.images.extractors import Extracted, FeatureExtractor
from evaluation.images.moments import Moments
from evaluation.images.reservoir import Reservoir
from generative.errors import DataError

ImageBatch = tuple[Tensor, Tensor]
"""Images float32[B, C, H, W] in [-1, 1], and their ids int64[B]: unique numbers of 0 .. 2^62 - 1."""

CHUNK = 1024
"""Samples that are folded into the statistics at a time."""

MOST_FEATURES = 8192
"""With more features a covariance would not fit into memory."""

_HEADER = "header"
_CLASSES, _MOMENTS, _RESERVOIR = "classes.", "moments.", "reservoir."


@dataclass(frozen=True)
class KeepSettings:
    """What is kept of the images.

    Args:
        reservoir: most samples whose features are kept, for metrics that compare samples with samples.
        seed: picks them.
        splits: parts of the samples that Inception Score and I-Variance are computed in, by sample id modulo `splits`.
        covariance: whether second moments are kept (FID).
    """

    reservoir: int = 10_000
    seed: int = 0
    splits: int = 10
    covariance: bool = True


@dataclass(frozen=True)
class ImageStatistics:
    """Mergeable statistics of a set of images.

    Args:
        count: images.
        extractor: description of what made their features.
        fingerprint: of the extractor.
        reservoir: features of some of them.
        moments: mean and covariance of the features of all; None where not asked for.
        classes: statistics of class probabilities; None where the extractor gives none.
    """

    count: int
    extractor: str
    fingerprint: str
    reservoir: Reservoir
    moments: Moments | None = None
    classes: ClassStatistics | None = field(default=None)

    def merge(self, other: ImageStatistics) -> ImageStatistics:
        """Statistics of both sets together; order and grouping of merges do not matter (rounding apart).

        Raises:
            DataError: they were made by different extractors or settings, or share a sample.
        """
        if (self.fingerprint, self.kept) != (other.fingerprint, other.kept):
            raise DataError(
                f"statistics of {self.extractor} ({self.kept}) and of {other.extractor} ({other.kept})",
                expected="parts that were scored by one extractor with one setting",
                remedy="score all parts again with one extractor",
            )
        return ImageStatistics(
            self.count + other.count,
            self.extractor,
            self.fingerprint,
            self.reservoir.merge(other.reservoir),
            None if self.moments is None or other.moments is None else self.moments.merge(other.moments),
            None if self.classes is None or other.classes is None else self.classes.merge(other.classes),
        )

    @property
    def kept(self) -> str:
        """Which statistics are kept, for people."""
        splits = None if self.classes is None else len(self.classes.count)
        return f"reservoir {self.reservoir.size}, covariance {self.moments is not None}, splits {splits}"

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors that `from_tensors` reads: for workers, and for safetensors files."""
        text = "\n".join([str(self.count), self.fingerprint, self.extractor])
        found = {_HEADER: torch.tensor(list(text.encode()), dtype=torch.uint8)}
        for prefix, part in ((_RESERVOIR, self.reservoir), (_MOMENTS, self.moments), (_CLASSES, self.classes)):
            if part is not None:
                found |= {prefix + name: tensor for name, tensor in part.tensors().items()}
        return found

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> ImageStatistics:
        """What `tensors` gave."""
        count, fingerprint, extractor = bytes(tensors[_HEADER].tolist()).decode().split("\n", 2)
        reservoir, moments, classes = (_under(prefix, tensors) for prefix in (_RESERVOIR, _MOMENTS, _CLASSES))
        return ImageStatistics(
            int(count),
            extractor,
            fingerprint,
            Reservoir.from_tensors(reservoir),
            Moments.from_tensors(moments) if moments else None,
            ClassStatistics.from_tensors(classes) if classes else None,
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def score_part(
    batches: Iterable[ImageBatch],
    extractor: FeatureExtractor,
    keep: KeepSettings | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> ImageStatistics:
    """Statistics of a part of the images, in bounded memory; parts are put together by `merge_parts`.

    Args:
        batches: images with their ids.
        extractor: features of images.
        keep: what is kept; the same for all parts of both sets.
        progress: told how many images are done.

    Raises:
        DataError: no images, features that are not finite, or an id that comes twice.
    """
    keep = keep or KeepSettings()
    found: ImageStatistics | None = None
    for extracted, ids in _chunks(batches, extractor):
        part = _statistics(extracted, ids, extractor, keep)
        found = part if found is None else found.merge(part)
        progress(found.count)
    if found is None:
        raise DataError("no images to evaluate", expected="one batch or more", remedy="draw or read more images")
    return found


def merge_parts(parts: Iterable[ImageStatistics]) -> ImageStatistics:
    """Statistics of all parts together.

    Raises:
        DataError: no parts, parts that do not belong together, or parts that share a sample.
    """
    found = list(parts)
    if not found:
        raise DataError("no parts to merge", expected="one part or more", remedy="score the images first")
    return reduce(ImageStatistics.merge, found)


def _chunks(batches: Iterable[ImageBatch], extractor: FeatureExtractor) -> Iterator[tuple[Extracted, Tensor]]:
    """Features and ids of about `CHUNK` samples at a time: a merge costs as much for one sample as for many."""
    waiting: list[tuple[Extracted, Tensor]] = []
    for images, ids in batches:
        if len(images) != len(ids):
            raise DataError(
                f"a batch of {len(images)} images with {len(ids)} ids",
                expected="one id for each image",
                remedy="number the images through, over all parts",
            )
        if len(images):
            waiting.append((extractor(images), ids))
        if sum(len(ids) for _, ids in waiting) >= CHUNK:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Extracted, Tensor]]) -> tuple[Extracted, Tensor]:
    features = torch.cat([extracted.features.cpu() for extracted, _ in parts])
    probabilities = [extracted.probabilities.cpu() for extracted, _ in parts if extracted.probabilities is not None]
    ids = torch.cat([ids.cpu() for _, ids in parts])
    return Extracted(features, torch.cat(probabilities) if probabilities else None), ids


def _statistics(extracted: Extracted, ids: Tensor, extractor: FeatureExtractor, keep: KeepSettings) -> ImageStatistics:
    """Statistics of one chunk."""
    features, probabilities = extracted.features, extracted.probabilities
    finite = features.isfinite().all(1)
    if not finite.all():
        raise DataError(
            f"the features of image {int(ids[~finite][0])} are not finite ({int((~finite).sum())} such images)",
            expected="images in [-1, 1] without NaN",
            remedy="look at what the generator draws: it may have diverged",
        )
    if keep.covariance and features.shape[1] > MOST_FEATURES:
        raise DataError(
            f"{features.shape[1]:,} features of {extractor.description}: their covariance does not fit",
            expected=f"at most {MOST_FEATURES:,} features for FID",
            remedy="leave FID out, or use another evaluate.extractor",
        )
    return ImageStatistics(
        len(ids),
        extractor.description,
        extractor.fingerprint,
        Reservoir.of(features, ids, keep.reservoir, keep.seed),
        Moments.of(features) if keep.covariance else None,
        None if probabilities is None else ClassStatistics.of(probabilities, ids % keep.splits, keep.splits),
    )
