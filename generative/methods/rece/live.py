"""Edits on a model that is in memory: the transform before it, which can be switched, or its weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from generative.errors import CheckpointError
from generative.methods.rece.transform import Transform

ARGUMENTS = {"text": "encoder_hidden_states", "pooled": "pooled_projections"}
EMBEDS = "text_embeds"
"""SDXL's pooled text, within added_cond_kwargs."""


class RuntimeErasure:
    """Applies T to the text that a denoiser is given: h -> h T^T, whatever its weights are (fused, quantised).

    Args:
        denoiser: a unet or transformer of diffusers; hooked until `remove`.
        transforms: by stream.
        strength: of the edit; may be set at any time, 0 switches it off.
    """

    def __init__(self, denoiser: nn.Module, transforms: Mapping[str, Transform], strength: float = 1.0) -> None:
        self.transforms, self.strength = dict(transforms), strength
        self._signature = inspect.signature(denoiser.forward)
        unread = [name for name in self.transforms if not self._reads(name)]
        if unread:
            raise CheckpointError(
                f"{type(denoiser).__name__} takes no {ARGUMENTS[unread[0]]}",
                expected="a denoiser that is told of a text by this argument",
                remedy="give the unet or transformer of the pipeline that the edit is of",
            )
        self._handle = denoiser.register_forward_pre_hook(self._before, with_kwargs=True)

    def remove(self) -> None:
        """The denoiser is again as it was."""
        self._handle.remove()

    def _reads(self, name: str) -> bool:
        known = self._signature.parameters
        return ARGUMENTS[name] in known or (name == "pooled" and "added_cond_kwargs" in known)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = self._signature.bind_partial(*args, **kwargs)
        given = bound.arguments
        for name, transform in self.transforms.items():
            at = transform.scaled(self.strength)
            if isinstance(given.get(ARGUMENTS[name]), Tensor):
                given[ARGUMENTS[name]] = at.on_states(given[ARGUMENTS[name]])
            elif name == "pooled" and given.get("added_cond_kwargs"):
                added = dict(given["added_cond_kwargs"])
                given["added_cond_kwargs"] = added | {EMBEDS: at.on_states(added[EMBEDS])}
        return bound.args, bound.kwargs


@contextmanager
def erased(denoiser: nn.Module, transforms: Mapping[str, Transform], strength: float = 1.0) -> Iterator[RuntimeErasure]:
    """The denoiser with the edit within the block, and without it after it."""
    hook = RuntimeErasure(denoiser, transforms, strength)
    try:
        yield hook
    finally:
        hook.remove()


def parameter(module: nn.Module, name: str) -> nn.Parameter:
    """A weight by its name in diffusers, also where an adapter (PEFT) is wrapped around its layer.

    Raises:
        CheckpointError: there is none, or it is quantised.
    """
    path, _, leaf = name.rpartition(".")
    try:
        layer: Any = module.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(f"the model has no layer {path}", "the model that the edit is of", "give it") from error
    layer = getattr(layer, "base_layer", layer)
    found = getattr(layer, leaf, None)
    if not isinstance(found, nn.Parameter) or not found.is_floating_point():
        raise CheckpointError(
            f"{name} is a {type(found).__name__} that cannot be edited",
            expected="a weight in fp32, fp16 or bf16",
            remedy="use the transform at run time (RuntimeErasure), or unfuse and dequantise the model",
        )
    return found


@torch.no_grad()
def replace_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights into a model in memory, in its own number format; the old ones, for putting them back bitwise.

    Raises:
        CheckpointError: a weight that the model does not have, or of another shape; nothing is changed then.
    """
    found = {name: parameter(module, name) for name in weights}
    for name, weight in weights.items():
        if found[name].shape != weight.shape:
            raise CheckpointError(
                f"{name} is {list(found[name].shape)} in the model and {list(weight.shape)} in the edit",
                expected="the model that the edit is of",
                remedy="give that model",
            )
    before = {name: one.detach().clone() for name, one in found.items()}
    for name, weight in weights.items():
        found[name].copy_(weight)
    return before
