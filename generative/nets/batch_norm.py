"""Batch normalisation that is exact over ranks and padding, on CPU and GPU.

torch's SyncBatchNorm refuses CPU tensors, and neither it nor BatchNorm knows of rows that weigh nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.nets.precision import WideBuffers, wide, without_autocast
from generative.nets.recomputation import again


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over ranks; its gradient is the sum of the gradients, as often as it is differentiated."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_ranks(gradients[0])


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over all ranks, with gradient. All ranks must call it in the same order, in both passes."""
    total: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def counted_rows(valid: Tensor | None) -> Tensor | None:
    """`valid` as networks take it: None where every row counts, so that fused kernels serve."""
    return None if valid is None or bool(valid.all()) else valid


class BatchNorm(WideBuffers):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over all axes but the second; 1-d and 2-d in one.

    In training, mean and (biased) variance are those of the valid rows of all ranks; the running statistics, with the
    unbiased variance, are the same on all ranks. Names in the state dict are those of torch's BatchNorm2d. Statistics
    are in fp32 or better, also under autocast.

    Args:
        features: C.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.alone = False
        """Statistics of this rank's rows only."""
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: [B, C] or [B, C, ...].
            valid: bool[B], rows that count; None: all. The others are normalised too, but weigh nothing. Without other
                ranks a mask takes a slower path: see `counted_rows`.

        Raises:
            ConfigError: one value a channel, which has no variance.
        """
        weight, bias = wide(self.weight), wide(self.bias)
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, weight, bias, False, self.momentum, self.eps)
        update = not again()
        if update:
            self.num_batches_tracked += 1
        shared = _several_ranks() and not self.alone
        if shared or valid is not None:
            with without_autocast(x):
                return self._weighted(x, valid, weight, bias, shared, update)
        _check_count(x)
        mean, var = self.running_mean, self.running_var
        if not update:  # what is written to is thrown away
            mean, var = mean.clone(), var.clone()
        return F.batch_norm(x, mean, var, weight, bias, True, self.momentum, self.eps)

    def _weighted(
        self, x: Tensor, valid: Tensor | None, weight: Tensor, bias: Tensor, shared: bool, update: bool
    ) -> Tensor:
        y, mean, var, count = _Normalise.apply(wide(x), valid, weight, bias, self.eps, shared)  # type: ignore[no-untyped-call]
        if update:
            with torch.no_grad():
                unbiased = var * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normalised: Tensor = y.to(x.dtype)
        return normalised


class _Normalise(torch.autograd.Function):
    """values, valid, weight, bias, eps, shared -> y, and float64 mean, biased variance and count without gradient.

    With x_hat the normalised values, N the count and sums over the values of all ranks that count,
    dx = weight / sigma * (dy - (sum dy + x_hat sum(dy x_hat)) / N); rows that do not count lack the second part.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, valid: Tensor | None, weight: Tensor, bias: Tensor, eps: float, shared: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _statistics(values, valid, shared)
        ctx.save_for_backward(values, valid, weight, bias, mean, var, count)
        ctx.eps, ctx.shared = eps, shared
        ctx.mark_non_differentiable(mean, var, count)
        # The kernel of evaluation mode normalises with statistics that are given.
        y = F.batch_norm(values, mean.to(values.dtype), var.to(values.dtype), weight, bias, False, 0.0, eps)
        return y, mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, valid, weight, bias, mean, var, count = ctx.saved_tensors
        outer = gradients[0]
        if torch.is_grad_enabled():  # gradients of gradients are wanted
            inputs = [
                t for t, needed in zip((values, valid, weight, bias), ctx.needs_input_grad, strict=False) if needed
            ]
            y = _composed(values, valid, weight, bias, ctx.eps, ctx.shared)
            found = iter(torch.autograd.grad(y, inputs, outer, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:4]), None, None)
        mean, var = mean.to(values.dtype), var.to(values.dtype)
        wanted = [True, True, True]
        inner, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            outer.contiguous(), values, weight, mean, var, None, None, False, ctx.eps, wanted
        )
        sums = torch.cat([d_bias, d_weight]).double()
        sums = sum_over_ranks(sums) if ctx.shared else sums
        shape = _per_channel(values)
        first, second = (sums / count).to(values.dtype).chunk(2)
        sigma = (var + ctx.eps).rsqrt()
        scale = weight * sigma
        rest = torch.addcmul(
            (scale * first).view(shape), values - mean.view(shape), (scale * sigma * second).view(shape)
        )
        if valid is not None:
            rest *= valid.to(values.dtype).view(-1, *([1] * (values.ndim - 1)))
        return inner.sub_(rest), None, d_weight, d_bias, None, None


def _composed(values: Tensor, valid: Tensor | None, weight: Tensor, bias: Tensor, eps: float, shared: bool) -> Tensor:
    """The same from operations that can be differentiated any number of times."""
    shape = _per_channel(values)
    mean, var, _ = _statistics(values, valid, shared)
    scale = (var + eps).rsqrt().to(values.dtype) * weight
    return torch.addcmul(bias.view(shape), values - mean.to(values.dtype).view(shape), scale.view(shape))


def _per_channel(values: Tensor) -> tuple[int, ...]:
    """The shape in which [C] goes with the values."""
    return (1, -1, *([1] * (values.ndim - 2)))


def _statistics(values: Tensor, valid: Tensor | None, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """float64 mean[C], biased variance[C] and count[] of the values that count, over all ranks if `shared`."""
    moments = _moments(values, valid, _per_channel(values))
    moments = sum_over_ranks(moments) if shared else moments
    count = moments[-1].clamp(min=1)
    first, second = (moments[:-1] / count).chunk(2)
    return first, (second - first.square()).clamp(min=0), count


def _moments(values: Tensor, valid: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """float64[2 C + 1]: sum, sum of squares and count of each channel's valid values on this rank.

    The variance on this rank is taken in two passes. Only the few sums that ranks exchange are in float64, where the
    difference of large numbers that gives the joint variance is harmless.
    """
    axes = [0, *range(2, values.ndim)]
    places = math.prod(values.shape[2:])
    if valid is None:
        rows, count = None, torch.tensor(float(len(values) * places), dtype=torch.float64, device=values.device)
    else:
        rows, count = valid.to(values.dtype).view(-1, *([1] * (values.ndim - 1))), valid.sum().double() * places
    some = count.clamp(min=1).to(values.dtype)

    def mean_of(tensor: Tensor) -> Tensor:
        return (tensor if rows is None else tensor * rows).sum(axes) / some

    # Not torch.var_mean, which takes four times as long on CPUs.
    mean = mean_of(values)
    var = mean_of((values - mean.view(shape)).square())
    mean, var = mean.double(), var.double()
    return torch.cat([count * mean, count * (var + mean.square()), count[None]])


def _several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _check_count(x: Tensor) -> None:
    if x.numel() <= x.shape[1]:
        raise ConfigError(
            f"batch normalisation of a batch of {len(x)} sample with one value a channel, which has no variance",
            expected="at least 2 samples in a batch",
            remedy="raise train.batch_size",
        )
