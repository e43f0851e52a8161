"""The small convolutional classifier behind the extractor `small`, and how it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generative.data.order import Order
from generative.randomness import Streams

SCOPE = "small_extractor"

LARGEST = 64
"""Larger images are averaged down to so many pixels a side."""


@dataclass(frozen=True)
class SmallSettings:
    """How the classifier is built and trained.

    Args:
        steps: optimizer steps.
        batch_size: images of a step.
        width: channels of the first layer; they double with each halving of the sides, up to four times as many.
        features: size of the last hidden layer, whose values are the features.
        learning_rate: of AdamW, falling to zero over a half cosine.
        noise: standard deviation of the noise on training images, against learning them by heart.
        seed: of weights, order and noise.
    """

    steps: int = 600
    batch_size: int = 128
    width: int = 32
    features: int = 128
    learning_rate: float = 2e-3
    noise: float = 0.2
    seed: int = 0


class SmallClassifier(nn.Module):
    """Images float32[B, C, H, W] -> (features [B, F], logits [B, K]); 3 x 3 convolutions and maximum pools."""

    def __init__(self, channels: int, height: int, width: int, classes: int, settings: SmallSettings) -> None:
        super().__init__()
        self.sides = min(height, LARGEST), min(width, LARGEST)
        outputs, (h, w) = settings.width, self.sides
        layers: list[nn.Module] = [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
        while min(h, w) > 4:
            inputs, outputs = outputs, min(2 * outputs, 4 * settings.width)
            layers += [nn.MaxPool2d(2), nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            h, w = h // 2, w // 2
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Linear(outputs * h * w, settings.features)
        self.head = nn.Linear(settings.features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images if images.shape[2:] == self.sides else functional.adaptive_avg_pool2d(images, self.sides)
        features = functional.relu(self.hidden(self.body(x).flatten(1)))
        return features, self.head(features)


def build(shape: tuple[int, ...], classes: int, settings: SmallSettings) -> SmallClassifier:
    """A classifier of images [C, H, W] with He-normal weights from the stream of each parameter's name."""
    with torch.device("meta"):
        net = SmallClassifier(shape[0], shape[1], shape[2], classes, settings)
    net = net.to_empty(device="cpu")
    streams = Streams(settings.seed).within(SCOPE)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                noise = streams.normal(name, [0], parameter.shape)[0]
                parameter.copy_(noise * math.sqrt(2 / parameter[0].numel()))
    return net


@dataclass(frozen=True)
class Task:
    """Images with what is to be told of them.

    Args:
        images: float32[N, C, H, W].
        labels: int64[N]; None: which of four rotations an image was turned by.
    """

    images: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images) * (1 if self.labels is not None else 4)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at indices int64[B]; without labels, image i // 4 turned i % 4 times."""
        if self.labels is not None:
            return self.images[indices], self.labels[indices]
        turns = indices % 4
        images = self.images[indices // 4]
        turned = torch.stack([images.rot90(int(turn), (2, 3)) for turn in range(4)])
        return turned[turns, torch.arange(len(indices))], turns


def train(
    task: Task, settings: SmallSettings, classes: int, progress: Callable[[int, int], None] | None = None
) -> SmallClassifier:
    """Train a classifier: the same bits for the same task, settings and number of threads.

    Args:
        task: samples and labels.
        settings: size and training.
        classes: number of labels.
        progress: told after each step how many are done, and all.
    """
    net = build(tuple(task.images.shape[1:]), classes, settings)
    optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=1e-3)
    order, streams = Order(len(task), settings.seed), Streams(settings.seed).within(SCOPE)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        counters = np.arange(step * settings.batch_size, (step + 1) * settings.batch_size)
        images, labels = task.fetch(torch.from_numpy(order[counters]))
        images = images + settings.noise * streams.at(step).normal("noise", [0], images.shape)[0]
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(images)[1], labels))
        optimizer.step()
        if progress is not None:
            progress(step + 1, settings.steps)
    return net.eval().requires_grad_(False)


def correct(net: SmallClassifier, task: Task, batch_size: int = 256) -> Tensor:
    """Which samples of a task are told right, bool[N]."""
    found = []
    with torch.no_grad():
        for indices in torch.split(torch.arange(len(task)), batch_size):
            images, labels = task.fetch(indices)
            found.append(net(images)[1].argmax(1) == labels)
    return torch.cat(found)
