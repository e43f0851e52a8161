"""Bytes that each rank sends in one training step, by the ring algorithms that gloo and NCCL use for large tensors.

A reduce-scatter or an all-gather of S bytes over W ranks sends S (W - 1) / W from each; an all-reduce is both.
Metrics, norms and checks are some bytes and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from generative.training.memory import FLOAT, Layout


def sent_bytes(elements: int, layout: Layout, gathered: Sequence[int] = ()) -> int:
    """Bytes sent by a rank for one optimizer step of a trained network.

    none          nothing
    ddp           all-reduce of the gradients, once a step
    zero1         reduce-scatter of the gradients and all-gather of the weights, once a step
    zero2         the same, but gradients with every micro-batch
    zero3         with every micro-batch: all-gather in the forward and in the backward pass, reduce-scatter
    fsdp          all-gathers as zero3 (the root's weights stay for the backward pass); gradients in fp32, once a step

    Args:
        elements: of the network.
        layout: how it is spread.
        gathered: fsdp: elements of each part that is gathered by itself, the root's first.
    """
    share = (layout.world - 1) / layout.world
    width, passes = layout.weight_bytes, layout.micro_batches
    match layout.strategy:
        case "ddp":
            volume = 2 * FLOAT * elements
        case "zero1":
            volume = 2 * width * elements
        case "zero2":
            volume = width * elements * (passes + 1)
        case "zero3":
            volume = 3 * width * elements * passes
        case "fsdp":
            width = 2 if layout.precision == "bf16" else FLOAT
            again = elements - (gathered[0] if gathered else 0)
            volume = width * (elements + again) * passes + FLOAT * elements
        case _:
            volume = 0
    return round(share * volume)


def frozen_sent_bytes(elements: int, layout: Layout) -> int:
    """Bytes sent to gather a sharded frozen network once with every micro-batch; 0 for one held whole."""
    if layout.strategy not in ("fsdp", "zero3"):
        return 0
    width = 2 if layout.precision == "bf16" else FLOAT
    return round((layout.world - 1) / layout.world * width * elements * layout.micro_batches)
