"""Draws from softmax distributions in float64, as functions of given uniforms.

In fp32 the tail of Gumbel noise is cut off, which silently lowers the temperature (arXiv 2409.02908); hence float64.

Shapes: M rows, V categories.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_AT_A_TIME = 256
"""Rows that are held in float64 at a time: at V = 32000 they take 64 MiB."""


def inverse_cdf(logits_mv: Tensor, uniform_m: Tensor, temperature: float = 1.0) -> Tensor:
    """Category int64[M] of softmax(logits / temperature) at which the distribution function passes `uniform`.

    One uniform a row in [0, 1). Temperature 0 takes the greatest logit. Logits of -inf are never drawn.
    """
    if temperature == 0.0:
        return logits_mv.argmax(-1)
    pairs = zip(torch.split(logits_mv, ROWS_AT_A_TIME), torch.split(uniform_m, ROWS_AT_A_TIME), strict=True)
    return torch.cat([_inverse_cdf(logits, uniform, temperature) for logits, uniform in pairs])


def _inverse_cdf(logits_mv: Tensor, uniform_m: Tensor, temperature: float) -> Tensor:
    cdf = (logits_mv.double() / temperature).softmax(-1).cumsum(-1)
    # u <= 1 - 2^-53 keeps the product below the total in float64, so that some category's share is always passed.
    return (cdf <= uniform_m[:, None] * cdf[:, -1:]).sum(-1)


def gumbel_scores(logits_mv: Tensor, uniform_mv: Tensor, temperature: float = 1.0) -> Tensor:
    """logits + temperature * G with standard Gumbel noise G = -log(-log u), float64[M, V].

    The argmax is a draw of softmax(logits / temperature): the logarithm of exp(logits) / (-log u)^temperature in the
    released code, without its overflow.
    """
    if temperature == 0.0:
        return logits_mv.double()
    return logits_mv.double() - temperature * (-uniform_mv.double().log()).log()


def probability_of(logits_mv: Tensor, choice_m: Tensor) -> Tensor:
    """softmax(logits)[choice], float64[M]."""
    pairs = zip(torch.split(logits_mv, ROWS_AT_A_TIME), torch.split(choice_m, ROWS_AT_A_TIME), strict=True)
    return torch.cat([logits.double().softmax(-1).gather(1, choice[:, None])[:, 0] for logits, choice in pairs])
