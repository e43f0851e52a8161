"""The extractor `small`: a classifier trained on the spot, for work without downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from evaluation.estimate import Estimate, mean_estimate
from evaluation.images.extractors import Extracted, check_images, identity, tensor_hash
from evaluation.images.small_network import SmallClassifier, SmallSettings, Task, build, correct, train
from generative.data.files import write_aside
from generative.data.lock import locked
from generative.data.order import permute
from generative.errors import DataError

HELD_OUT = 0.2
MOST_HELD_OUT = 2000
JOINT_CLASSES = 10_000
"""Most classes of all channels together; beyond, no joint probabilities are given."""

_VERSION = 1


@dataclass(frozen=True)
class LabelledImages:
    """What a classifier is trained on.

    Args:
        images: float32[N, C, H, W] in [-1, 1].
        labels: int64[N], each 0 .. K - 1; None where there are none: the classifier then tells rotations apart.
        description: where they come from, for people.
    """

    images: Tensor
    labels: Tensor | None
    description: str


class SmallExtractor:
    """Features of a classifier. One of gray images sees each channel of other images alone, as a gray image.

    Args:
        net: the classifier.
        channels: those it was trained with.
        labelled: whether its classes mean something.
        accuracy: on held-out images, in percent.
        data: what it was trained on, for people.
    """

    def __init__(self, net: SmallClassifier, channels: int, labelled: bool, accuracy: Estimate, data: str) -> None:
        self.net, self.channels, self.labelled, self.accuracy = net, channels, labelled, accuracy
        hashed = tensor_hash(*net.state_dict().values())
        self.fingerprint = identity("small", _VERSION, channels, labelled, hashed)
        kind = "classifier" if labelled else "rotation classifier"
        self.description = f"small {kind} {hashed[:8]} of {data} ({accuracy} of {accuracy.n:,} held-out images right)"

    def __call__(self, images: Tensor) -> Extracted:
        """Features [B, F], or of all channels [B, C * F]; probabilities [B, K], or of joint classes [B, K^C]."""
        features, probabilities = self._channels(images)
        joint = _joint(probabilities) if self.labelled and probabilities.shape[2] > 1 else None
        return Extracted(features.flatten(1), joint)

    def class_probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities of each channel seen alone, float32[B, C, K] (C is 1 where all are seen together)."""
        return self._channels(images)[1]

    def _channels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, C, F] and probabilities [B, C, K]."""
        x = check_images(images, self.channels if self.channels > 1 else None).to(self.net.head.weight)
        alone = x.flatten(0, 1)[:, None] if self.channels == 1 else x
        with torch.no_grad():
            features, logits = self.net(alone)
        return tuple(t.unflatten(0, (len(x), -1)) for t in (features, logits.softmax(1)))


def _joint(probabilities: Tensor) -> Tensor | None:
    """Probabilities of all combinations of the channels' classes, [B, C, K] -> [B, K^C]; None where too many."""
    _, channels, classes = probabilities.shape
    if classes**channels > JOINT_CLASSES:
        return None
    joint = probabilities[:, 0]
    for channel in range(1, channels):
        joint = (joint[:, :, None] * probabilities[:, channel, None]).flatten(1)
    return joint


def small_extractor(
    data: LabelledImages,
    settings: SmallSettings | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SmallExtractor:
    """Train a classifier on four fifths of the images, or read it from the cache if it was trained before.

    The rest (at most 2,000, picked by a keyed permutation) is held out: accuracy on it stands in the protocol of every
    figure. Give images that are different from one another, since copies on both sides would flatter it.

    Args:
        data: what to train on: never the images that a model generated.
        settings: size and training.
        cache: folder for trained classifiers, by content; None: none is kept.
        progress: told how many steps of the training are done, and all; not called where it was trained before.

    Raises:
        DataError: images or labels that cannot be used.
    """
    settings = settings or SmallSettings()
    _check(data)
    if cache is None:
        return _trained(data, settings, progress)[0]
    labels = () if data.labels is None else (data.labels,)
    key = identity(_VERSION, tensor_hash(data.images, *labels), asdict(settings))
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"small-{key[:32]}.safetensors"
    with locked(path.with_suffix(".lock")):
        if path.is_file():
            return _read(path, data.description)
        extractor, facts = _trained(data, settings, progress)
        metadata = {"facts": json.dumps(facts)}
        write_aside(path, save({k: v.contiguous() for k, v in extractor.net.state_dict().items()}, metadata))
    return extractor


def _trained(
    data: LabelledImages, settings: SmallSettings, progress: Callable[[int, int], None] | None
) -> tuple[SmallExtractor, dict[str, object]]:
    """A fresh extractor, and what must be known to build it again."""
    count = len(data.images)
    order = torch.from_numpy(permute(np.arange(count), count, settings.seed, epoch=0))
    held = min(int(HELD_OUT * count), MOST_HELD_OUT)
    task, test = (
        Task(data.images[rows].float(), None if data.labels is None else data.labels[rows].long())
        for rows in (order[held:], order[:held])
    )
    classes = 4 if data.labels is None else int(data.labels.max()) + 1
    net = train(task, settings, classes, progress)
    accuracy = mean_estimate(100.0 * correct(net, test).numpy(), "%")
    shape = list(data.images.shape[1:])
    facts = {
        "shape": shape,
        "classes": classes,
        "settings": asdict(settings),
        "labelled": data.labels is not None,
        "accuracy": accuracy.to_json(),
    }
    return SmallExtractor(net, shape[0], data.labels is not None, accuracy, data.description), facts


def _read(path: Path, description: str) -> SmallExtractor:
    """An extractor from the cache. Raises DataError."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        net = build(tuple(facts["shape"]), facts["classes"], SmallSettings(**facts["settings"]))
        net.load_state_dict(state)
        accuracy = Estimate.from_json(facts["accuracy"])
        return SmallExtractor(
            net.eval().requires_grad_(False), facts["shape"][0], facts["labelled"], accuracy, description
        )
    except Exception as error:  # a damaged file shows in many ways
        raise DataError(
            f"{path}: damaged extractor ({error})",
            expected="the file as it was written",
            remedy="delete it: it is trained again",
        ) from error


def _check(data: LabelledImages) -> None:
    """Raise DataError for images and labels that do not fit."""
    check_images(data.images)
    count, side = len(data.images), min(data.images.shape[2:])
    if int(HELD_OUT * count) < 1 or side < 4:
        raise DataError(
            f"{data.description}: {count} images of {side} pixels to train an extractor on",
            expected="5 images or more of at least 4 pixels a side",
            remedy="give more images, or use evaluate.extractor=pixels",
        )
    if data.labels is None and data.images.shape[2] != data.images.shape[3]:
        raise DataError(
            f"{data.description}: images of {data.images.shape[2]} x {data.images.shape[3]} pixels without labels",
            expected="square images, since the extractor learns to tell rotations, or labels",
            remedy="crop the images, give labels, or use another evaluate.extractor",
        )
    if data.labels is not None and (data.labels.shape != (count,) or int(data.labels.min()) < 0):
        raise DataError(
            f"{data.description}: labels {list(data.labels.shape)} from {int(data.labels.min())} for {count} images",
            expected="one label of 0 or more for each image",
            remedy="correct the labels, or leave them out",
        )
