"""The Inception v3 network of FID: TensorFlow's "inception-2015-12-05", under the names of its PyTorch weights.

It differs from the Inception v3 of Szegedy et al. 2016 in average pools that do not count padding, one pool of the last
block that takes the maximum, and 1008 classes. Written as a table, since the published ports need torchvision and read
their weights by unpickling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299
FEATURES = 2048
CLASSES = 1008

Layer = tuple[str, int, int, int]
"""Name, output channels, kernel height and width."""
Pool = Literal["average", "maximum"]


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, each a chain of layers.

    Args:
        inputs: input channels.
        branches: chains of layers. A tuple of layers within a chain ends it with layers side by side.
        pool: kind of the pooling branch, which comes last.
        pooled: output channels of the layer after the pool; 0: none.
        stride: 2 halves the sides: by the last layer of each chain and by the pool, without padding.
    """

    def __init__(
        self,
        inputs: int,
        branches: Sequence[Sequence[Layer | tuple[Layer, ...]]],
        pool: Pool = "average",
        pooled: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.chains = [[names(step) for step in branch] for branch in branches]
        self.pool, self.stride = pool, stride
        for branch in branches:
            channels = inputs
            for step in branch:
                last = stride > 1 and step is branch[-1]
                for name, outputs, height, width in layers(step):
                    unit = Unit(channels, outputs, (height, width), stride if last else 1, pad=not last)
                    self.add_module(name, unit)
                channels = layers(step)[-1][1]
        if pooled:
            self.branch_pool = Unit(inputs, pooled, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for chain in self.chains:
            sides = [x]
            for step in chain:
                sides = [self.get_submodule(name)(sides[0]) for name in step]
            found.extend(sides)
        pooled = self._pooled(x)
        return torch.cat([*found, self.branch_pool(pooled) if hasattr(self, "branch_pool") else pooled], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        padding = 1 if self.stride == 1 else 0
        if self.pool == "maximum":
            return functional.max_pool2d(x, 3, self.stride, padding)
        return functional.avg_pool2d(x, 3, self.stride, padding, count_include_pad=False)


def layers(step: Layer | tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers of a step: one, or several side by side."""
    return (step,) if isinstance(step[0], str) else step


def names(step: Layer | tuple[Layer, ...]) -> list[str]:
    """Names of the layers of a step."""
    return [layer[0] for layer in layers(step)]


def _block_35(inputs: int, pooled: int) -> Mixed:
    branches = [
        [("branch1x1", 64, 1, 1)],
        [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 5)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 3), ("branch3x3dbl_3", 96, 3, 3)],
    ]
    return Mixed(inputs, branches, pooled=pooled)


def _block_17(width: int) -> Mixed:
    double = [("1", width, 1, 1), ("2", width, 7, 1), ("3", width, 1, 7), ("4", width, 7, 1), ("5", 192, 1, 7)]
    branches = [
        [("branch1x1", 192, 1, 1)],
        [("branch7x7_1", width, 1, 1), ("branch7x7_2", width, 1, 7), ("branch7x7_3", 192, 7, 1)],
        [(f"branch7x7dbl_{name}", *rest) for name, *rest in double],
    ]
    return Mixed(768, branches, pooled=192)  # type: ignore[arg-type]


def _block_8(inputs: int, pool: Pool) -> Mixed:
    def sides(name: str) -> tuple[Layer, Layer]:
        return (f"{name}a", 384, 1, 3), (f"{name}b", 384, 3, 1)

    branches: list[list[Layer | tuple[Layer, ...]]] = [
        [("branch1x1", 320, 1, 1)],
        [("branch3x3_1", 384, 1, 1), sides("branch3x3_2")],
        [("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 3), sides("branch3x3dbl_3")],
    ]
    return Mixed(inputs, branches, pool, pooled=192)


def _to_17() -> Mixed:
    branches = [
        [("branch3x3", 384, 3, 3)],
        [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 3), ("branch3x3dbl_3", 96, 3, 3)],
    ]
    return Mixed(288, branches, "maximum", stride=2)


def _to_8() -> Mixed:
    branches = [
        [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 3)],
        [
            ("branch7x7x3_1", 192, 1, 1),
            ("branch7x7x3_2", 192, 1, 7),
            ("branch7x7x3_3", 192, 7, 1),
            ("branch7x7x3_4", 192, 3, 3),
        ],
    ]
    return Mixed(768, branches, "maximum", stride=2)


class FidInception(nn.Module):
    """Images float32[B, 3, H, W] with values 0 .. 255 -> (pool3 float32[B, 2048], logits without bias [B, 1008]).

    Scores are taken without the bias of the last layer, as the published Inception Scores are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, (3, 3), stride=2, pad=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, (3, 3), pad=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Unit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Unit(80, 192, (3, 3), pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_35(192, 32), _block_35(256, 64), _block_35(288, 64)
        self.Mixed_6a = _to_17()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(_block_17, (128, 160, 160, 192))
        self.Mixed_7a = _to_8()
        self.Mixed_7b, self.Mixed_7c = _block_8(1280, "average"), _block_8(2048, "maximum")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (resize(images, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def resize(images: Tensor, side: int) -> Tensor:
    """Bilinear resizing [B, C, H, W] -> [B, C, side, side] as TensorFlow 1 has it: pixel i lies at i * H / side."""
    for dim in (3, 2):
        size = images.shape[dim]
        place = torch.arange(side, dtype=images.dtype, device=images.device) * torch.tensor(size / side).to(images)
        low = place.long()
        weight = (place - low).view([-1, 1] if dim == 2 else [-1])
        below = images.index_select(dim, low)
        above = images.index_select(dim, (low + 1).clamp_max(size - 1))
        images = below + (above - below) * weight
    return images
