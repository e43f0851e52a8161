"""Bytes that each rank holds of a network's state under each strategy, from shapes alone.

n elements in a network, W ranks; b bytes an element in the type of the weights (4, or 2 in bf16 under ZeRO).

             parameters      gradients                   optimizer (AdamW)              averages, each
none, ddp    4 n             4 n                         8 n                            4 n
fsdp         4 n / W         4 n / W (n: micro-batches)  8 n / W                        4 n / W
zero1        b n             b n / W (n: micro-batches)  12 n / W, masters included     4 n / W
zero2        b n             b n / W                     12 n / W                       4 n / W
zero3        b n / W         b n / W                     12 n / W                       4 n / W

What n / W means exactly differs: fsdp pads the rows of each parameter, zero1 and zero2 flatten each parameter group and
pad it to a multiple of 2 W, zero3 pads each parameter. The formulas here follow torch 2.11 to 2.13 and DeepSpeed 0.19.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from generative.training.config import Strategy

Shape = tuple[int, ...]
Groups = Sequence[Sequence[Shape]]
"""Shapes of the trained parameters in the optimizer's groups (with and without weight decay), in the module's order."""

FLOAT, STEP = 4, 4
"""Bytes of an fp32 number, and of the count of steps that AdamW keeps for each tensor that it steps on."""

BUCKET_ELEMENTS = 500_000_000
"""Gradients that DeepSpeed collects at most before it exchanges them."""

LIVE_ELEMENTS = 1_000_000_000
"""Gathered elements that ZeRO-3 keeps rather than let go and gather again (its default)."""


@dataclass(frozen=True)
class Layout:
    """How one network is spread.

    Args:
        strategy: of the network; none for a frozen network that is held whole.
        world: number of ranks.
        rank: whose bytes are asked for (0 holds the most).
        precision: of training.
        moments: tensors that the optimizer keeps for each parameter: 2 for AdamW, 1 for SGD with momentum, 0 without.
        averages: number of moving averages.
        micro_batches: forward and backward passes in a step.
        offload: the optimizer (zero3, fsdp: weights and gradients too) is in host memory.
        cuda: on GPUs, where DeepSpeed exchanges one bucket while it fills another, and a bucket takes its whole size
            (on a CPU memory that was never written to takes none).
    """

    strategy: Strategy
    world: int = 1
    rank: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    moments: int = 2
    averages: int = 0
    micro_batches: int = 1
    offload: bool = False
    cuda: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of an element of the weights that the forward pass reads: bf16 where ZeRO trains in it."""
        return 2 if self.precision == "bf16" and self.strategy.startswith("zero") else FLOAT

    @property
    def gradient_bytes(self) -> int:
        """Bytes of an element of the gradients: sums over micro-batches are fp32."""
        return FLOAT if self.micro_batches > 1 else self.weight_bytes


@dataclass(frozen=True)
class StateBytes:
    """Bytes of one rank. `optimizer` has the fp32 masters of ZeRO; `buffers` are gathered weights and buckets.

    `gradients` are those at their peak, in the middle of a step. `host` is the part of all that lies in host memory
    where the network is on a GPU; the other fields count what is on the device.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    ema: int = 0
    buffers: int = 0
    host: int = 0

    def __add__(self, other: StateBytes) -> StateBytes:
        return StateBytes(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def device(self) -> int:
        """All that is on the device."""
        return self.parameters + self.gradients + self.optimizer + self.ema + self.buffers


def count(shapes: Sequence[Shape]) -> int:
    """Elements of all shapes."""
    return sum(math.prod(shape) for shape in shapes)


def trained_bytes(groups: Groups, layout: Layout, gathered: Sequence[int] = ()) -> StateBytes:
    """State of a network that is trained.

    `gathered`, for fsdp: elements of each part that is gathered by itself, the root's first.
    """
    groups = [group for group in groups if group]
    match layout.strategy:
        case "fsdp":
            state = _fsdp(groups, layout, gathered)
        case "zero1" | "zero2":
            state = _flat_zero(groups, layout)
        case "zero3":
            state = _zero3(groups, layout)
        case _:
            state = _whole(groups, layout)
    return _offloaded(state, layout) if layout.offload else state


def frozen_bytes(shapes: Sequence[Shape], layout: Layout, gathered: Sequence[int] = ()) -> StateBytes:
    """State of a network that is not trained: its weights, whole (`layout.strategy` none) or sharded (fsdp, zero3)."""
    weights = trained_bytes([shapes], replace(layout, offload=False)).parameters
    buffers = 0
    if layout.strategy == "zero3":
        buffers = _zero3_gathered([shapes], layout)
    elif layout.strategy == "fsdp":
        buffers = _fsdp_gathered(gathered, layout, trained=False)
    moved = layout.offload and layout.strategy in ("fsdp", "zero3")
    return StateBytes(0 if moved else weights, buffers=buffers, host=weights if moved else 0)


def _whole(groups: Groups, layout: Layout) -> StateBytes:
    shapes = [shape for group in groups for shape in group]
    bytes_ = FLOAT * count(shapes)
    steps = STEP * len(shapes) if layout.moments == 2 else 0
    return StateBytes(bytes_, bytes_, layout.moments * bytes_ + steps, layout.averages * bytes_)


# ---------------------------------------------------------------------- fsdp: rows of each parameter


def rows(shape: Shape, world: int, rank: int) -> tuple[int, int]:
    """(elements of the rank's rows, elements with padding): ceil(rows / W) rows each, the last ranks fewer or none."""
    first = shape[0] if shape else 1
    row = math.prod(shape) // max(first, 1)
    each = -(-first // world)
    return max(0, min(each, first - rank * each)) * row, each * row


def _fsdp(groups: Groups, layout: Layout, gathered: Sequence[int]) -> StateBytes:
    shapes = [shape for group in groups for shape in group]
    parts = [rows(shape, layout.world, layout.rank) for shape in shapes]
    own, padded = (FLOAT * sum(part[i] for part in parts) for i in (0, 1))
    # Until the last micro-batch, gradients are added up whole and not yet exchanged.
    gradients = FLOAT * count(shapes) if layout.micro_batches > 1 else padded
    steps = STEP * len(shapes) if layout.moments == 2 else 0
    buffers = _fsdp_gathered(gathered, layout, trained=True)
    return StateBytes(padded, gradients, layout.moments * own + steps, layout.averages * own, buffers)


def _fsdp_gathered(gathered: Sequence[int], layout: Layout, trained: bool) -> int:
    """The root's weights, those of the part in use, and the next one on its way (an estimate); where it is trained also
    a part's gradient and the fp32 copy that is exchanged."""
    if not gathered:
        return 0
    width = 2 if layout.precision == "bf16" else FLOAT
    root, largest = gathered[0], max(gathered[1:], default=0)
    gradient = (width + FLOAT) * max(gathered) if trained else 0
    return width * (root + 2 * largest) + gradient


# ---------------------------------------------------------------------- zero1, zero2: flat parameter groups


def _flat_zero(groups: Groups, layout: Layout) -> StateBytes:
    world, width = layout.world, layout.weight_bytes
    sizes = [count(group) for group in groups]
    flats = [-(-size // (2 * world)) * 2 * world for size in sizes]
    part = sum(flat // world for flat in flats)
    own = sum(
        max(0, min(flat // world, size - layout.rank * (flat // world)))
        for flat, size in zip(flats, sizes, strict=True)
    )
    touched = sum(_touched(group, flat // world, layout.rank) for group, flat in zip(groups, flats, strict=True))
    gradients, buffers = touched, min(BUCKET_ELEMENTS, sum(sizes)) * (2 if layout.cuda else 1)
    if layout.micro_batches == 1:
        gradients += part - own  # zeros at the end of the last interval
    else:
        if layout.strategy == "zero1":
            gradients = sum(sizes)
        elif layout.gradient_bytes > width:
            gradients = part  # fp32 sums of bf16 gradients are kept as one interval of the flat group
        if layout.strategy == "zero2":
            buffers += touched  # the sum so far is kept beside the gradients of the micro-batch
    return StateBytes(
        parameters=width * sum(flats),
        gradients=layout.gradient_bytes * gradients,
        optimizer=_masters_and_moments(part, len(groups), layout),
        ema=FLOAT * layout.averages * own,
        buffers=width * buffers,
    )


def _masters_and_moments(part: int, groups: int, layout: Layout) -> int:
    return FLOAT * part * (1 + layout.moments) + (STEP * groups if layout.moments == 2 else 0)


def _touched(group: Sequence[Shape], part: int, rank: int) -> int:
    """Elements of all parameters that the rank's interval of the flat group touches: their gradients are kept whole."""
    total = start = 0
    for shape in group:
        end = start + math.prod(shape)
        if start < (rank + 1) * part and end > rank * part:
            total += end - start
        start = end
    return total


# ---------------------------------------------------------------------- zero3: each parameter by itself


def _zero3(groups: Groups, layout: Layout) -> StateBytes:
    width, sizes = layout.weight_bytes, [math.prod(shape) for group in groups for shape in group]
    parts = [-(-size // layout.world) for size in sizes]
    own = sum(max(0, min(part, size - layout.rank * part)) for part, size in zip(parts, sizes, strict=True))
    return StateBytes(
        parameters=width * sum(parts),
        gradients=layout.gradient_bytes * sum(parts),
        optimizer=_masters_and_moments(sum(parts), len(groups), layout),
        ema=FLOAT * layout.averages * own,
        buffers=width * min(BUCKET_ELEMENTS, sum(sizes)) + _zero3_gathered(groups, layout),
    )


def _zero3_gathered(groups: Groups, layout: Layout) -> int:
    return layout.weight_bytes * min(sum(count(group) for group in groups), LIVE_ELEMENTS)


def _offloaded(state: StateBytes, layout: Layout) -> StateBytes:
    """Where cpu_offload puts things on a machine with GPUs (formulas; offloading does nothing on CPUs)."""
    if layout.strategy in ("none", "ddp"):
        return state
    if layout.strategy == "fsdp":
        moved = state.parameters + state.gradients + state.optimizer + state.ema
        return StateBytes(buffers=state.buffers, host=moved)
    # The masters' gradients lie beside them in fp32.
    gradients = state.gradients * FLOAT // layout.weight_bytes
    if layout.strategy == "zero3":
        return StateBytes(buffers=state.buffers, host=state.parameters + gradients + state.optimizer + state.ema)
    return StateBytes(state.parameters, buffers=state.buffers, host=gradients + state.optimizer + state.ema)
