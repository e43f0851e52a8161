"""Draws from softmax distributions in float64, as functions of given uniforms.

In fp32 the tail of Gumbel noise is cut off, which silently lowers the temperature (arXiv 2409.02908); hence float64.

Shapes: M rows, V categories.
"""

from __future__ import annotations

from collections.abc import Callable

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
    return _by_rows(lambda p, choice: p.gather(1, choice[:, None])[:, 0], logits_mv, choice_m)


def margin(logits_mv: Tensor) -> Tensor:
    """Greatest probability less the second greatest, float64[M] (the greatest alone, where there is one category)."""
    return _by_rows(lambda p, _: p.topk(min(2, p.shape[1]), dim=1).values @ _contrast(p), logits_mv, logits_mv[:, 0])


def negative_entropy(logits_mv: Tensor) -> Tensor:
    """Sum of p log p over categories, float64[M], at most 0."""
    return _by_rows(lambda p, _: torch.special.xlogy(p, p).sum(1), logits_mv, logits_mv[:, 0])


def restrict(logits_mv: Tensor, top_k: int | None = None, top_p: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Logits with -inf outside the `top_k` most probable, and outside the nucleus.

    The nucleus is the fewest categories, most probable first, whose probabilities at `temperature` sum to `top_p` or
    more. At least the most probable stays.
    """
    if top_k is not None and top_k < logits_mv.shape[1]:
        least = logits_mv.topk(top_k, dim=1).values[:, -1:]
        logits_mv = logits_mv.masked_fill(logits_mv < least, -torch.inf)
    if top_p >= 1.0 or temperature == 0.0:
        return logits_mv
    ordered, order = logits_mv.sort(dim=1, descending=True, stable=True)
    share = (ordered.double() / temperature).softmax(1)
    beyond = share.cumsum(1) - share >= top_p
    beyond[:, 0] = False
    return logits_mv.masked_fill(torch.empty_like(beyond).scatter_(1, order, beyond), -torch.inf)


def _contrast(probabilities: Tensor) -> Tensor:
    return probabilities.new_tensor([1.0, -1.0])[: probabilities.shape[1]]


def _by_rows(figure: Callable[[Tensor, Tensor], Tensor], logits_mv: Tensor, other_m: Tensor) -> Tensor:
    """figure(softmax(logits) in float64, other), some rows at a time."""
    pairs = zip(torch.split(logits_mv, ROWS_AT_A_TIME), torch.split(other_m, ROWS_AT_A_TIME), strict=True)
    return torch.cat([figure(logits.double().softmax(-1), other) for logits, other in pairs])
