"""Standing statistics: batch normalisation of a generator for the weights it wears now, from fresh samples.

Running statistics trail behind the weights, and those of averaged weights are of none. After BigGAN (arXiv 1809.11096,
section 3) they are made anew before sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from generative.method import Alone, Collectives
from generative.nets.batch_norm import BatchNorm

_ALONE = Alone()


@torch.no_grad()
def standing_statistics(
    generator: nn.Module,
    latents: Callable[[Tensor], Tensor],
    count: int,
    batch: int = 500,
    collectives: Collectives = _ALONE,
) -> dict[str, Tensor]:
    """Running statistics as the mean of those of fresh batches (torch's momentum=None), each weighing the same.

    Batch i holds the samples i * batch to (i + 1) * batch - 1, on whichever rank it is made (rank i % world), so that
    the result does not depend on the number of ranks. All of them must call this.

    Args:
        generator: called as generator(z) in training mode; it is left as it was.
        latents: makes z[B, Z] from sample ids int64[B] (from a stream, on the generator's device).
        count: samples to see, rounded up to whole batches.
        batch: samples in one pass.
        collectives: of the ranks that share the work.

    Returns:
        entries of the state dict, for `wearing`; empty for a network without batch normalisation.
    """
    norms = {name: module for name, module in generator.named_modules() if isinstance(module, BatchNorm)}
    if not norms:
        return {}
    device = next(iter(norms.values())).running_mean.device
    batches = -(-count // batch)
    with wearing(generator, dict(generator.named_buffers())):
        mine = [
            _of_batch(generator, norms, latents(torch.arange(i * batch, (i + 1) * batch, device=device)))
            for i in range(collectives.rank, batches, collectives.world)
        ]
    width = sum(2 * norm.running_mean.numel() for norm in norms.values())
    found = collectives.gather(torch.stack(mine) if mine else torch.empty(0, width, dtype=torch.float64, device=device))
    # In the order of the batches, whoever made them: the sum has the same bits for any number of ranks.
    order = sorted(range(batches), key=lambda i: (i % collectives.world, i))
    mean = found[torch.tensor(order, device=device).argsort()].mean(0)
    return _named(norms, mean, batches)


def _of_batch(generator: nn.Module, norms: Mapping[str, BatchNorm], z: Tensor) -> Tensor:
    """float64[all channels * 2]: mean and unbiased variance of each norm's input in one batch of this rank."""
    training = {module: module.training for module in generator.modules()}
    kept = {name: (norm.momentum, norm.alone) for name, norm in norms.items()}
    try:
        generator.train()
        for norm in norms.values():
            # With momentum 1 running statistics are the batch's.
            norm.momentum, norm.alone = 1.0, True
        generator(z)
    finally:
        for name, norm in norms.items():
            norm.momentum, norm.alone = kept[name]
        for module, mode in training.items():
            module.training = mode
    return torch.cat([part.double() for norm in norms.values() for part in (norm.running_mean, norm.running_var)])


def _named(norms: Mapping[str, BatchNorm], flat: Tensor, batches: int) -> dict[str, Tensor]:
    """The parts of `flat` under their names in the state dict."""
    result: dict[str, Tensor] = {}
    sizes = [norm.running_mean.numel() for norm in norms.values() for _ in range(2)]
    parts = iter(torch.split(flat, sizes))
    for name, norm in norms.items():
        prefix = f"{name}." if name else ""
        result[f"{prefix}running_mean"] = next(parts).to(norm.running_mean.dtype)
        result[f"{prefix}running_var"] = next(parts).to(norm.running_var.dtype)
        result[f"{prefix}num_batches_tracked"] = torch.full_like(norm.num_batches_tracked, batches)
    return result


@contextmanager
def wearing(module: nn.Module, buffers: Mapping[str, Tensor]) -> Iterator[None]:
    """The module has these buffers inside this context, and its own ones again after it."""
    own = {name: module.get_buffer(name) for name in buffers}
    before = {name: buffer.clone() for name, buffer in own.items()}
    try:
        for name, buffer in own.items():
            buffer.copy_(buffers[name])
        yield
    finally:
        for name, buffer in own.items():
            buffer.copy_(before[name])
