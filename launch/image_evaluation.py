"""The figures of evaluation.json for images and points, drawn and scored in parts by ranks or by workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.estimate import Estimate
from evaluation.image import ImageBatch, ImageStatistics, KeepSettings, MetricSettings, compare, score_part
from evaluation.modes import grid, judged_modes, mixture_modes, ring
from evaluation.restoration import psnr
from generative.data.images import ImageData
from generative.data.sources import Source
from generative.randomness import Streams
from launch.image_sections import ImageEvaluation
from launch.modality import Progress
from launch.reconstructions import Originals, originals_of, psnr_figure

if TYPE_CHECKING:
    from evaluation.images.extractors import FeatureExtractor
    from launch.schema import RunConfig

STREAMS = Streams(0).within("evaluation")
"""Noise of all evaluations: the same samples whatever is evaluated and wherever."""

EXTRACTORS = "extractors"
"""Folder in the run's for extractors that are trained on the spot: seen by all workers."""

MOST_FOR_CLASSIFIER = 20_000
"""Images that the classifier of the extractor `small` is trained on at most."""

POINT_MODES = {"ring": (ring, 0.01), "grid": (grid, 0.05)}
"""Means and standard deviation of the mixtures of data.name=points."""


@dataclass(frozen=True)
class Subject:
    """What is measured, on what.

    Args:
        settings: the section `evaluate`.
        source: name of the data (data.name), which tells what is known of its modes.
        kind: of mixture (data.kind), where the data are points.
        data: real samples.
        sample: int64[B] -> float32[B, *shape], each sample by its number.
        device: where the networks are.
        cache: folder for extractors that are trained on the spot.
        originals: what samples are reconstructions of; None: of nothing.
    """

    settings: ImageEvaluation
    source: str
    kind: str
    data: ImageData
    sample: Callable[[Tensor], Tensor]
    device: torch.device
    cache: Path
    originals: Originals | None = None


@dataclass(frozen=True)
class Part:
    """What a rank or worker found out about some of the samples.

    Args:
        statistics: of the features of images; None for points.
        modes: points float32[N, 2], or class probabilities of channels float32[N, C, K]; None where modes are unknown.
        psnr: of each reconstruction, float64[N] in dB; None for samples that are no reconstructions.
    """

    statistics: ImageStatistics | None
    modes: Tensor | None
    psnr: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors that `from_tensors` reads."""
        each = {"modes": self.modes, "psnr": self.psnr}
        found = {name: tensor for name, tensor in each.items() if tensor is not None}
        return found | ({} if self.statistics is None else self.statistics.tensors())

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Part:
        """What `tensors` gave."""
        rest = {name: tensor for name, tensor in tensors.items() if name not in ("modes", "psnr")}
        statistics = ImageStatistics.from_tensors(rest) if rest else None
        return Part(statistics, tensors.get("modes"), tensors.get("psnr"))

    def merge(self, other: Part) -> Part:
        """Both parts together."""
        both = self.statistics is not None and other.statistics is not None
        return Part(
            self.statistics.merge(other.statistics) if both else None,  # type: ignore[union-attr, arg-type]
            _together(self.modes, other.modes),
            _together(self.psnr, other.psnr),
        )


def _together(mine: Tensor | None, others: Tensor | None) -> Tensor | None:
    return None if mine is None or others is None else torch.cat([mine, others])


def sampler_of(
    method: Any, nets: Mapping[str, nn.Module], device: torch.device, streams: Streams, data: ImageData
) -> Any:
    """int64[B] -> float32[B, *shape] on the CPU: samples by number, latents decoded."""
    return _by_number(method.sampler(nets), device, streams, data, originals_of(method, data))


def companion_of(
    method: Any, nets: Mapping[str, nn.Module], device: torch.device, streams: Streams, data: ImageData
) -> Any:
    """What is shown beside the method's samples, in words, and how it is drawn; or None.

    Reconstructions have their originals there, students their teacher's samples of the same noise.
    """
    originals = originals_of(method, data)
    if originals is not None:
        return "held-out images, from which they were made", lambda ids: data.pictures(originals(ids))
    door = getattr(method, "companion", None)
    if door is None:
        return None
    name, sampler = door(nets)
    return f"the same noise through the {name}", _by_number(sampler, device, streams, data)


def _by_number(
    sampler: Any, device: torch.device, streams: Streams, data: ImageData, originals: Originals | None = None
) -> Callable[[Tensor], Tensor]:
    def sample(ids: Tensor) -> Tensor:
        shown = {} if originals is None else {"sample": originals(ids)}
        told = {name: value.to(device) for name, value in (data.told(ids) | shown).items()}
        with torch.no_grad():
            drawn: Tensor = sampler({"sample_id": ids.to(device), **told}, streams)
        return data.pictures(drawn.float()).cpu()

    if data.captioned is None:
        return sample
    size = data.captioned.batch_size
    return lambda ids: torch.cat([sample(some) for some in torch.split(ids, size)])


def keep(settings: ImageEvaluation) -> KeepSettings:
    """What is kept of each set."""
    return KeepSettings(reservoir=settings.features, covariance=settings.metrics is None or "fid" in settings.metrics)


def scorer(subject: Subject, training: Progress | None = None) -> Callable[[range], Part]:
    """A function that draws and scores the samples of some numbers; see `open_extractor` for `training`."""
    settings = subject.settings
    if subject.data.kind == "points":
        return lambda numbers: Part(None, torch.cat([images for images, _ in _drawn(subject, numbers)]))
    extractor = open_extractor(settings, subject.source, subject.data, subject.device, subject.cache, training)
    judge = getattr(extractor, "class_probabilities", None) if subject.source == "stacked_digits" else None

    def score(numbers: range) -> Part:
        seen: list[Tensor] = []
        near: list[Tensor] = []

        def watched() -> Iterator[ImageBatch]:
            for images, ids in _drawn(subject, numbers):
                if judge is not None:
                    seen.append(judge(images).cpu())
                if subject.originals is not None:
                    near.append(psnr(images.clamp(-1, 1), subject.data.pictures(subject.originals(ids))))
                yield images, ids

        found = score_part(watched(), extractor, keep(settings))
        return Part(found, torch.cat(seen) if seen else None, torch.cat(near) if near else None)

    return score


def _drawn(subject: Subject, numbers: range) -> Iterator[ImageBatch]:
    size = subject.settings.batch_size
    for start in range(numbers.start, numbers.stop, size):
        ids = torch.arange(start, min(start + size, numbers.stop))
        yield subject.sample(ids), ids


def reference_scorer(subject: Subject) -> Callable[[range], Part]:
    """The same of real images, by their place among those that are compared."""
    settings = subject.settings
    source, chosen = reference_of(settings, subject.data)
    extractor = open_extractor(settings, subject.source, subject.data, subject.device, subject.cache)

    def batches(numbers: range) -> Iterator[ImageBatch]:
        for start in range(numbers.start, numbers.stop, settings.batch_size):
            ids = np.arange(start, min(start + settings.batch_size, numbers.stop))
            yield subject.data.pictures(source.fetch(chosen[ids])["sample"]), torch.from_numpy(ids)

    return lambda numbers: Part(score_part(batches(numbers), extractor, keep(settings)), None)


def reference_of(settings: ImageEvaluation, data: ImageData) -> tuple[Source, np.ndarray]:
    """Real samples, and the numbers of those that are compared: evenly over all."""
    source = data.train if settings.reference == "train" else data.validation
    count = min(settings.reference_samples, len(source))
    return source, np.linspace(0, len(source) - 1, count).round().astype(np.int64)


def open_extractor(
    settings: ImageEvaluation,
    source: str,
    data: ImageData,
    device: torch.device,
    cache: Path,
    training: Progress | None = None,
) -> FeatureExtractor:
    """The extractor of `evaluate.extractor`; `small` is trained where it is not in the cache, and `training` told.

    Raises:
        DataError, CheckpointError: missing or unsuitable weights.
    """
    from evaluation.images import opening

    with torch.enable_grad():  # `small` may have to be trained, even where networks are evaluated
        return opening.open_extractor(
            settings.extractor,
            weights=settings.extractor_weights,
            revision=settings.extractor_revision,
            training=labelled_images(source, data) if settings.extractor == "small" else None,
            cache=cache,
            device=device,
            progress=training,
        )


def labelled_images(source: str, data: ImageData) -> Any:
    """What the extractor `small` learns from: training images, evenly over all; single digits for stacked ones."""
    from evaluation.images.small import LabelledImages

    if source == "stacked_digits":
        from generative.data.image_config import DigitsConfig
        from generative.data.images import open_images

        data = open_images(DigitsConfig())
    count = min(MOST_FOR_CLASSIFIER, len(data.train))
    found = data.train.fetch(np.linspace(0, len(data.train) - 1, count).round().astype(np.int64))
    return LabelledImages(data.pictures(found["sample"]), found.get("label"), data.description.split(",")[0])


def figures(subject: Subject, generated: Part, reference: Part | None) -> dict[str, dict[str, Any]]:
    """All figures by name, as JSON."""
    found: dict[str, Estimate] = {}
    if generated.statistics is not None and reference is not None and reference.statistics is not None:
        settings = MetricSettings(neighbours=subject.settings.neighbours)
        found |= compare(generated.statistics, reference.statistics, subject.settings.metrics, settings)
    if generated.modes is not None:
        found = _modes(subject, generated.modes) | found
    if generated.psnr is not None:
        found = {"psnr": psnr_figure(generated.psnr)} | found
    return {name: estimate.to_json() for name, estimate in found.items()}


def _modes(subject: Subject, seen: Tensor) -> dict[str, Estimate]:
    if subject.data.kind == "points":
        means, std = POINT_MODES[subject.kind]
        mixture = mixture_modes(seen, means(), std)
        return {"modes": mixture.modes, "high_quality": mixture.high_quality, "mode_kl": mixture.reverse_kl}
    stacked = judged_modes(seen, "classifier of the extractor")
    found = {"modes": stacked.modes, "mode_kl": stacked.kl}
    return found | ({} if stacked.confidence is None else {"confidence": stacked.confidence})


def summary(subject: Subject, generated: Part, reference: Part | None, model: str, step: int) -> dict[str, Any]:
    """What is written to evaluation.json."""
    settings = subject.settings
    against = "held-out samples" if settings.reference == "validation" else "training samples"
    made = "samples" if subject.originals is None else "reconstructions"
    return {
        "time": time.time(),
        "step": step,
        "model": model,
        "data": f"{settings.samples:,} {made} against {against} of {subject.data.description}",
        "samples": settings.samples,
        **({"extractor": settings.extractor} if reference is not None else {}),
        "figures": figures(subject, generated, reference),
    }


def subject_of(
    config: RunConfig,
    method: Any,
    data: ImageData,
    sample: Callable[[Tensor], Tensor],
    device: torch.device,
    run_dir: Path,
) -> Subject:
    """What an evaluation is about."""
    kind = getattr(config.data, "kind", "")
    folder, originals = run_dir / EXTRACTORS, originals_of(method, data)
    return Subject(config.evaluate, config.data.name, kind, data, sample, device, folder, originals)
