"""Figures of folders of images: FID between two of them, LPIPS of equal names, CLIP score with prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.erasure.clip import ClipScore
from evaluation.erasure.detectors import lpips64, lpips_alex
from evaluation.erasure.opening import digit_judge
from evaluation.estimate import Estimate, mean_estimate
from evaluation.image import evaluate_images
from evaluation.images.extractors import FeatureExtractor, PixelExtractor
from evaluation.images.opening import open_extractor
from evaluation.images.statistics import ImageBatch
from generative.data.image_data import EIGHT_BITS
from generative.data.image_decode import SUFFIXES, Kind, Target, UnsuitableError, decode, read_kind
from generative.errors import ConfigError, DataError
from generative.registry import Registry

BATCH = 32


def image_files(folder: Path) -> list[Path]:
    """Images of a folder, by name. Raises DataError: fewer than two."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if len(found) < 2:
        raise DataError(
            f"{folder}: {f'{len(found)} images' if folder.is_dir() else 'no such folder'}",
            f"a folder with two images or more ({', '.join(SUFFIXES)})",
            "correct its path",
        )
    return found


def read_batches(files: Sequence[Path]) -> Iterator[ImageBatch]:
    """Images float32[B, C, H, W] in [-1, 1] with their numbers; all of one size and number of channels.

    Raises:
        DataError: one that cannot be read, or is of another size.
    """
    first: Kind | None = None
    for start in range(0, len(files), BATCH):
        rows = []
        for path in files[start : start + BATCH]:
            try:
                first = first or read_kind(path)
                target = Target(first.channels, first.height, first.width, background="white")
                rows.append(torch.tensor(decode(path, target)))
            except UnsuitableError as error:
                raise DataError(
                    f"{path}: {error}", "readable images of one size in a folder", "take it out, or resize it"
                ) from error
        yield torch.stack(rows).float() / EIGHT_BITS - 1, torch.arange(start, start + len(rows))


def folder_fid(images: Path, reference: Path, extractor: FeatureExtractor) -> Estimate:
    """FID of two folders, with its standard error; the extractor and its weights stand in the protocol.

    Raises:
        DataError: folders that cannot be used.
    """
    both = [read_batches(image_files(folder)) for folder in (images, reference)]
    return evaluate_images(both[0], both[1], extractor, ["fid"])["fid"]


def folder_lpips(before: Path, after: Path, distance: Callable[[Tensor, Tensor], Tensor] | None = None) -> Estimate:
    """Mean LPIPS of images with equal names, at 64 x 64.

    Raises:
        DataError: lpips is not installed, or the folders have no equal names.
    """
    names = sorted({p.name for p in image_files(before)} & {p.name for p in image_files(after)})
    if not names:
        raise DataError(f"{before} and {after} have no files of equal names", "pairs of images", "draw both again")
    distance = distance or lpips_alex()
    batches = zip(*(read_batches([folder / name for name in names]) for folder in (before, after)), strict=True)
    values = torch.cat([lpips64(a, b, distance) for (a, _), (b, _) in batches])
    told = "LPIPS, AlexNet, v0.1, resized to 64 x 64 (bilinear), before against after from equal seeds"
    return mean_estimate(values.double().numpy(), "", told)


def folder_clip(files: Sequence[Path], prompts: Sequence[str], score: ClipScore) -> Estimate:
    """Mean of 100 max(cos, 0) of images and their prompts."""
    found = [score(images, [prompts[i] for i in ids.tolist()]) for images, ids in read_batches(files)]
    told = f"100 max(cos, 0), {score.name}, prompts cut at the text encoder's length"
    return mean_estimate(torch.cat(found).double().numpy(), "", told)


def _given(kind: str) -> Callable[[str, Path | None], FeatureExtractor]:
    def opened(what: str, cache: Path | None) -> FeatureExtractor:
        if not what:
            raise ConfigError(
                f"--fid {kind} without weights", f"{kind}:FILE_OR_NAME, on this machine or the hub", "name the weights"
            )
        return open_extractor(kind, weights=what, cache=cache)

    return opened


FEATURES: Registry[Callable[[str, Path | None], FeatureExtractor]] = Registry(
    "extractor",
    {
        "inception": _given("inception"),
        "transformers": _given("transformers"),
        "digits": lambda what, cache: digit_judge(cache),
        "pixels": lambda what, cache: PixelExtractor(),
    },
)


def open_features(name: str, cache: Path | None = None) -> FeatureExtractor:
    """inception:FILE (published FID), transformers:NAME, digits (a classifier trained on the spot) or pixels.

    Raises:
        ConfigError: another name, or no weights.
        DataError: weights that cannot be used.
    """
    kind, _, what = name.partition(":")
    return FEATURES[kind](what, cache)
