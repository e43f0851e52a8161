"""Head and cross-entropy in one pass over row chunks, with the gradient computed in the forward pass.

A language model's logits are its largest tensor: rows x vocabulary. Here only one chunk of rows exists at a time: its
logits become, in place, exponentials and then the gradient, which is multiplied into the gradients of the hidden
states and of the head at once. Backward only scales those two by the incoming gradient.

Shapes: M rows, d features, V outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from generative.nets.uncompiled import uncompiled

CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
"""Logits that exist at a time, by device type: near the cache on a CPU, enough to fill a GPU."""

_planned_device: ContextVar[str | None] = ContextVar("_planned_device", default=None)


@contextmanager
def chunks_of(device_type: str) -> Iterator[None]:
    """Chunks as large as on that type of device, whatever the tensors are on: for plans of other machines."""
    token = _planned_device.set(device_type)
    try:
        yield
    finally:
        _planned_device.reset(token)


def _chunks(hidden_md: Tensor, weight_vd: Tensor) -> Iterator[slice]:
    """Slices of rows whose logits are small enough to exist at a time."""
    device = _planned_device.get() or hidden_md.device.type
    size = max(1, CHUNK_ELEMENTS.get(device, 2**24) // len(weight_vd))
    return (slice(start, start + size) for start in range(0, len(hidden_md), size))


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _exponentials_(logits_mv: Tensor, targets_m: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits into exp(logit - largest) in place; return their sums [M], and -log p of the targets [M]."""
    logits_mv.sub_(logits_mv.amax(-1, keepdim=True))
    target_logits_m = logits_mv.gather(1, targets_m[:, None])[:, 0]
    total_m = logits_mv.exp_().sum(-1)
    return total_m, total_m.log() - target_logits_m


def _nll_only(hidden_md: Tensor, weight_vd: Tensor, targets_m: Tensor) -> Tensor:
    """Negative log-likelihoods [M] without any gradient."""
    nll_m = hidden_md.new_empty(len(hidden_md), dtype=_at_least_fp32(hidden_md.dtype))
    for part in _chunks(hidden_md, weight_vd):
        logits_cv = (hidden_md[part] @ weight_vd.T).to(nll_m.dtype)
        nll_m[part] = _exponentials_(logits_cv, targets_m[part])[1]
    return nll_m


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a temporary where the types agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_md: Tensor, weight_vd: Tensor, targets_m: Tensor, weights_m: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        matrix_vd = weight_vd.to(dtype)
        grad_hidden = torch.empty_like(hidden_md) if need_hidden else None
        grad_weight = torch.zeros_like(weight_vd) if need_weight else None
        nll_m = hidden_md.new_empty(len(hidden_md), dtype=_at_least_fp32(dtype))
        for part in _chunks(hidden_md, weight_vd):
            h_cd, t_c, w_c = hidden_md[part].to(dtype), targets_m[part], weights_m[part, None].to(nll_m.dtype)
            grad_cv = (h_cd @ matrix_vd.T).to(nll_m.dtype)
            total_c, nll_m[part] = _exponentials_(grad_cv, t_c)
            # Weighted in the pass that divides by the sum.
            grad_cv.mul_(w_c / total_c[:, None]).scatter_add_(1, t_c[:, None], -w_c)
            grad_cv = grad_cv.to(dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_cv @ matrix_vd
            if grad_weight is not None:
                _accumulate(grad_weight, grad_cv.T, h_cd)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nll_m)
        return (weights_m * nll_m).sum(), nll_m

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("linear_cross_entropy has no gradient of its gradient (create_graph=True)")
        # Not in place: the same graph may be walked twice (retain_graph).
        grads = [None if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors]
        return (*grads, None, None, None)


_apply: Callable[..., tuple[Tensor, Tensor]] = _LinearCrossEntropy.apply


@uncompiled
def linear_cross_entropy(
    hidden_md: Tensor, weight_vd: Tensor, targets_m: Tensor, weights_m: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropies of `hidden @ weight.T`, softmax in fp32 or better.

    Under autocast the matrix products run in its type. Gradients of gradients are refused (RuntimeError).

    Args:
        hidden_md: [M, d]; M may be 0 (the sum is 0 and its graph still reaches hidden and weight).
        weight_vd: [V, d], the head without bias.
        targets_m: int64[M], each in 0 .. V-1.
        weights_m: fp32[M] without gradient; 0 for padding rows.

    Returns:
        sum(weights * nll), a scalar with gradient, and nll[M] (nats), detached; both fp32 (float64 for float64 input).
    """
    dtype = _compute_dtype(hidden_md)
    with torch.autocast(hidden_md.device.type, enabled=False):
        weights_m = weights_m.detach()
        if torch.is_grad_enabled() and (hidden_md.requires_grad or weight_vd.requires_grad):
            return _apply(hidden_md, weight_vd, targets_m, weights_m, dtype)
        nll_m = _nll_only(hidden_md.to(dtype), weight_vd.to(dtype), targets_m)
        return (weights_m * nll_m).sum(), nll_m
