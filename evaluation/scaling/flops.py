"""Parameters and training FLOPs of a transformer in every convention that scaling laws were published in.

An exponent of N_opt moves from about 0.84 to 0.70 by the convention alone (Porian et al. 2024): store all, name one.
A multiply-add is two operations, a backward pass twice its forward; norms, biases and embedding look-ups are free, but
in `chinchilla`, which counts the look-up as a product. Recomputation of checkpointed blocks does not count: it is cost,
not compute of the law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.scaling.shapes import Shape, parameters

TRAINING = 3
"""Forward and backward, in forward passes."""


ConventionName = Literal[
    "six_n_nonemb", "six_n_smdm", "six_n_head", "six_n_total", "exact", "palm", "porian_attention", "chinchilla"
]


def six_n_nonemb(shape: Shape) -> int:
    """6 N, N the matrices of the blocks (Kaplan, Henighan)."""
    return 6 * parameters(shape).active_matmul


def six_n_smdm(shape: Shape) -> int:
    """6 N, N the blocks with their norms (SMDM; `train.flops` of this library)."""
    return 6 * (parameters(shape).active_matmul + parameters(shape).scalar)


def six_n_head(shape: Shape) -> int:
    """6 (N + head) (Porian's standard): the default."""
    return 6 * (parameters(shape).active_matmul + shape.head)


def six_n_total(shape: Shape) -> int:
    """6 N, N all parameters, the embedding too (Hoffmann's C = 6 N D)."""
    counted = parameters(shape)
    return 6 * (counted.total - counted.matmul + counted.active_matmul)


def exact(shape: Shape) -> int:
    """6 (N + head) and the products of attention: 12 L h k T, half of it where attention is causal."""
    return six_n_head(shape) + attention(shape) // (2 if shape.causal else 1)


def palm(shape: Shape) -> int:
    """As `exact`, with the whole square of attention also where it is causal (PaLM, nanochat; torch's counter)."""
    return six_n_head(shape) + attention(shape)


def porian_attention(shape: Shape) -> int:
    """6 (N + head) + 6 T d L: half of the square for every model (Porian et al. 2024)."""
    return six_n_head(shape) + 6 * shape.context * shape.width * shape.layers


def attention(shape: Shape) -> int:
    """12 L h k T a token: QK^T and AV over the whole square, forward and backward."""
    return 12 * shape.layers * shape.attention_width * shape.context


def chinchilla(shape: Shape) -> float:
    """Appendix F of Hoffmann et al. 2022: embedding and softmax count, and attention over the whole square.

    Its text does not give the ratios of the paper's Table A4 (unverified). A gated feed-forward, which the paper does
    not have, counts its three matrices.
    """
    per_token = 2 * (parameters(shape).active_matmul + 2 * shape.head)
    squares = shape.layers * shape.context * (4 * shape.attention_width + 3 * shape.heads)
    return float(TRAINING * (per_token + squares))


CONVENTIONS: Mapping[ConventionName, Callable[[Shape], float]] = {
    "six_n_nonemb": six_n_nonemb,
    "six_n_smdm": six_n_smdm,
    "six_n_head": six_n_head,
    "six_n_total": six_n_total,
    "exact": exact,
    "palm": palm,
    "porian_attention": porian_attention,
    "chinchilla": chinchilla,
}
"""Training FLOPs a token, by name."""

DEFAULT: ConventionName = "six_n_head"


def training_flops_per_token(shape: Shape) -> dict[str, float]:
    """All conventions, to be stored with a run."""
    return {name: float(count(shape)) for name, count in CONVENTIONS.items()}


Pass = Literal["trained", "through", "frozen"]
PASSES: Mapping[Pass, int] = {"trained": 3, "through": 2, "frozen": 1}
"""Forward passes that a call costs: with gradients of weights and inputs, of inputs alone (a frozen network that a
gradient goes through), and none."""


@dataclass(frozen=True)
class Call:
    """One call of a network in a training step.

    Args:
        forward: FLOPs of its forward pass.
        kind: what runs backward.
        times: calls of it in a step (a fraction where it is not in each).
    """

    forward: float
    kind: Pass
    times: float = 1.0


def step_flops(*calls: Call) -> float:
    """FLOPs of a step of several networks: distillation, GANs, guidance. Every call counts."""
    return sum(call.forward * PASSES[call.kind] * call.times for call in calls)
