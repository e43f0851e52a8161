"""What a method's forward and backward passes take in memory and arithmetic, found out without running them.

The loss of each update runs once on a micro-batch with fake weights: tensors that have shapes and types but no numbers
(torch's FakeTensorMode), so that a model of any size fits and nothing is computed. Noise and data are real: they are
small, and shapes follow from them (which tokens are masked). Each storage that comes up is counted until it is let go.

The kernels are those of the CPU. On a GPU attention saves the same tensors (flash or memory-efficient kernels: queries,
keys, values, output and a number a row), and its fused norms save less; workspaces of libraries come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from generative.method import Alone, Batch, Context, Method, Update
from generative.operations import Operations
from generative.randomness import Streams

Numerics = Literal["fp32", "autocast", "bf16"]
"""fp32; autocast: bf16 products with fp32 weights (none, ddp); bf16: trained weights are read in that type (fsdp and
zero). Frozen networks run under autocast in both of the latter."""


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations make while it is active, as long as each of them lives.

    `now` and `peak` are bytes; storages of tensors given to `ignore` do not count.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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


class Onlooker(Alone):
    """A rank that tells a person nothing, so that no loss reads a number for a message."""

    rank = 1


@dataclass(frozen=True)
class FakeRun:
    """A method with fake weights.

    Args:
        method: whose losses are run.
        numerics: see `Numerics`.
        checkpointing: whether trained networks recompute their activations.
        seed: of the noise.
    """

    method: Method
    numerics: Numerics = "fp32"
    checkpointing: bool = False
    seed: int = 0

    def activation_bytes(self, batch: Batch, global_batch: int | None = None) -> dict[str, int]:
        """Peak of what one micro-batch needs beside the states (weights, gradients, optimizer), in bytes, by update.

        Gradients are taken to be there already, as they are under DDP and from the second micro-batch on; the
        gradient of one weight before it is added counts.

        Args:
            batch: one micro-batch on the CPU, as the loader would give it.
            global_batch: samples in the global batch; None: as many as in the micro-batch.

        Raises:
            RuntimeError: the loss asks for numbers that a network put out; a fake one has none.
        """
        return {update.name: self._peak(update, batch, global_batch) for update in self.method.updates()}

    def flops(self, batch: Batch) -> int:
        """Operations of one training step on the samples of a batch, by the formulas of torch's FlopCounterMode.

        Matrix products and attention only, each at its full size: causal attention counts as a whole square, and what
        activation checkpointing does again counts again. Arguments and errors as `activation_bytes`.
        """
        total = 0
        for update in self.method.updates():
            counted = Operations()
            self._backward(update, batch, None, LiveStorages(), counted)
            total += counted.total * update.repeats // update.every
        return total

    def _peak(self, update: Update, batch: Batch, global_batch: int | None) -> int:
        live = LiveStorages()
        self._backward(update, batch, global_batch, live, live)
        return live.peak

    def _backward(self, update: Update, batch: Batch, global_batch: int | None, live: LiveStorages, mode: Any) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        fake = FakeTensorMode(allow_non_fake_inputs=True)
        modules = self._networks(fake)
        state = self.method.state()
        streams, size = Streams(self.seed).within(update.name), global_batch or len(batch["sample_id"])
        context = Context(0, streams, size, state, Onlooker())
        live.ignore(*batch.values(), *state.values())
        for name, module in modules.items():
            _prepare(module, name, update, fake, live)
        nets = {name: self._entering(fake, module, name) for name, module in modules.items()}
        with mode:
            loss = self.method.loss(update, nets, batch, context).value
            loss.backward()  # type: ignore[no-untyped-call]

    def _networks(self, fake: Any) -> dict[str, nn.Module]:
        modules = {}
        for name, spec in self.method.networks().items():
            with fake:
                modules[name] = module = spec.build()
                if self.numerics == "bf16" and spec.trainable:
                    _to_bf16(module)
            if self.checkpointing and spec.trainable:
                module.activation_checkpointing = True  # type: ignore[assignment]
        return modules

    def _entering(self, fake: Any, module: nn.Module, name: str) -> Callable[..., Any]:
        """The network as a loss calls it; what goes in becomes fake."""
        lowered = self.numerics == "bf16" and self.method.networks()[name].trainable
        autocast = self.numerics != "fp32" and not lowered

        def forward(*args: Any, **kwargs: Any) -> Any:
            with fake:
                if lowered:
                    args, kwargs = tree_map(lambda value: _as(torch.bfloat16, value), (args, kwargs))
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    out = module(*args, **kwargs)
                return tree_map(lambda value: _as(torch.float32, value), out) if self.numerics != "fp32" else out

        return forward


def _prepare(module: nn.Module, name: str, update: Update, fake: Any, live: LiveStorages) -> None:
    """Modes, gradients and what does not count as activations."""
    trained = name == update.trains
    module.requires_grad_(trained)
    module.train(update.modes.get(name, "train" if trained else "eval") == "train")
    live.ignore(*module.buffers())
    for parameter in module.parameters():
        live.ignore(parameter)
        if trained:
            with fake:
                parameter.grad = torch.zeros_like(parameter)
            live.ignore(parameter.grad)


def _to_bf16(module: nn.Module) -> None:
    """`module.to(torch.bfloat16)`, which fake weights refuse."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = _as(torch.bfloat16, tensor.data)


def _as(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
