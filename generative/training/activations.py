"""How much memory a method's forward and backward passes take, found out without running them.

The loss of each update runs once on a micro-batch with fake weights: tensors that have shapes and types but no numbers
(`FakeTensorMode`), so that a model of any size fits and nothing is computed. Noise and data are real (they are small,
and shapes may follow from them); only the networks are fake. Each storage that comes up is counted until it is let go.

What is counted are the kernels of the CPU. On a GPU attention saves the same tensors (flash or memory-efficient kernels:
queries, keys, values, output and one number a row); its fused norms save less.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from generative.method import Batch, Context, Method, Update
from generative.randomness import Streams

Numerics = Literal["fp32", "autocast", "bf16"]
"""fp32; autocast: bf16 products with fp32 weights (none, ddp); bf16: weights of that type (zero1-3; fsdp gathers them
so)."""


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of all storages that operations make while it is active, as long as each of them lives.

    `now` and `peak` are bytes; storages given to `ignore` do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def ignore(self, *tensors: Tensor) -> None:
        """Do not count these tensors' storages."""
        for tensor in tensors:
            self._enter(tensor.untyped_storage(), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._enter(storage, storage.nbytes())
        return out

    def _enter(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._seen:
            return

        def leave(_: Any) -> None:
            self._seen.pop(key, None)
            self.now -= size

        self._seen[key] = weakref.ref(storage, leave)
        self.now += size
        self.peak = max(self.peak, self.now)


def activation_bytes(
    method: Method,
    batch: Batch,
    *,
    numerics: Numerics,
    checkpointing: bool = False,
    global_batch: int | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Peak of what one micro-batch needs beside the states (weights, gradients, optimizer), in bytes, by update.

    Gradients are taken to be there already, as they are under DDP and from the second micro-batch on; the temporary
    gradient of one weight before it is added counts.

    Args:
        method: whose loss is run.
        batch: one micro-batch on the CPU, as the loader would give it.
        numerics: see `Numerics`.
        checkpointing: whether trained networks recompute their activations.
        global_batch: samples in the global batch; None: as many as in the micro-batch.
        seed: of the noise.

    Raises:
        RuntimeError: the loss asks for numbers that a network put out, which a fake one does not have.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    modules = fake_networks(method, fake, numerics, checkpointing)
    state = method.state()
    peaks = {}
    for update in method.updates():
        streams = Streams(seed).within(update.name)
        context = Context(0, streams, global_batch or len(batch["sample_id"]), state)
        peaks[update.name] = _peak(method, update, modules, batch, context, fake, numerics)
    return peaks


def fake_networks(method: Method, fake: Any, numerics: Numerics, checkpointing: bool) -> dict[str, nn.Module]:
    """All networks of a method with fake weights."""
    modules = {}
    for name, spec in method.networks().items():
        with fake:
            module = spec.build()
            if numerics == "bf16":
                _to_bf16(module)
        if checkpointing and spec.trainable:
            module.activation_checkpointing = True  # type: ignore[assignment]
        modules[name] = module
    return modules


def _to_bf16(module: nn.Module) -> None:
    """`module.to(torch.bfloat16)`, which fake weights refuse."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.bfloat16)


def _peak(
    method: Method,
    update: Update,
    modules: Mapping[str, nn.Module],
    batch: Batch,
    context: Context,
    fake: Any,
    numerics: Numerics,
) -> int:
    live = LiveStorages()
    live.ignore(*batch.values(), *context.state.values())
    for name, module in modules.items():
        trained = name == update.trains
        module.requires_grad_(trained)
        module.train(update.modes.get(name, "train" if trained else "eval") == "train")
        for parameter in module.parameters():
            with fake:
                parameter.grad = torch.zeros_like(parameter) if trained else None
            live.ignore(parameter, *([parameter.grad] if trained else []))
        live.ignore(*module.buffers())
    nets = {name: _entering(fake, module, numerics == "autocast") for name, module in modules.items()}
    with live:
        loss = method.loss(update, nets, batch, context).value
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
    for parameter in modules[update.trains].parameters():
        parameter.grad = None
    return live.peak


def _entering(fake: Any, module: nn.Module, autocast: bool) -> Callable[..., Any]:
    """The network as a loss calls it; what goes in becomes fake."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with fake, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return module(*args, **kwargs)

    return forward
