"""Published checkpoints (HaozheLiu-ST/MEE: `{epoch}gen.pth`, `{epoch}cls.pth`) in and out.

They are bare state dicts. Names are ours already, but for spectral norms that torch's newer parametrizations have
saved, and a prefix of DataParallel. The sizes are not in the files; they follow from the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.methods.mee_gan.config import DcganConfig, MeeGanConfig

_NEW_NAMES = {
    ".parametrizations.weight.original": ".weight_orig",
    ".parametrizations.weight.0._u": ".weight_u",
    ".parametrizations.weight.0._v": ".weight_v",
}
_RAW = ("weight_orig", "weight")


@dataclass(frozen=True)
class Released:
    """What the files hold.

    Args:
        config: of these networks; what the files do not tell is as by default.
        shape: [C, S, S] of a sample.
        networks: state dicts by name, "generator" and "discriminator", or one of them.
    """

    config: MeeGanConfig
    shape: tuple[int, int, int]
    networks: Mapping[str, Mapping[str, Tensor]]


def from_released(*states: Mapping[str, Tensor]) -> Released:
    """Networks and their sizes from one or two published state dicts, in any order.

    Raises:
        CheckpointError: not these networks, two of a kind, or two that do not fit each other.
    """
    networks: dict[str, dict[str, Tensor]] = {}
    for state in map(_renamed, states):
        name = _kind(state)
        if name in networks:
            raise _unfit(f"two files of a {name}", "a file of each network, or of one")
        networks[name] = state
    told: dict[str, Any] = {}
    shapes = set()
    for name, state in networks.items():
        sizes, shape = (_generator if name == "generator" else _discriminator)(state)
        told |= sizes
        shapes.add(shape)
    if len(shapes) > 1:
        one, other = sorted(shapes)
        raise _unfit(
            f"a generator and a discriminator for samples of {list(one)} and {list(other)}", "a pair that fits"
        )
    width = told.pop("width", DcganConfig().width)
    network = DcganConfig(width=width, discriminator_width=told.pop("discriminator_width", None))
    return Released(MeeGanConfig(network=network, **told), shapes.pop(), networks)


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our DCGAN networks under the released names, for their strict loading.

    A released discriminator has a plain head even where it is not used; rows of the identity stand in for one that is
    missing.

    Raises:
        CheckpointError: networks that the released code does not have.
    """
    if not any(f"model.0.{name}" in state for name in _RAW):
        raise CheckpointError(
            f"a network with tensors {', '.join(list(state)[:3])}, ..., which the released code does not have",
            "the DCGAN networks",
            "export with --layout generative",
        )
    found = {name: tensor.detach() for name, tensor in state.items()}
    if not any(name.endswith("running_mean") for name in found) and "reparam.weight_orig" not in found:
        raise CheckpointError(
            "a discriminator without spectral normalisation or spread codes, which the released code cannot load",
            "method.spectral_norm=true and method.reparameterised=true, as in the presets paper, released and default",
            "export with --layout generative",
        )
    if "reparam.weight_orig" in found and "fc.weight_orig" not in found:
        head = found["reparam.weight_orig"]
        rows = torch.eye(len(head) // 2, head.shape[1], dtype=head.dtype)
        found |= {"fc.weight_orig": rows, "fc.weight_u": rows[:, 0].clone(), "fc.weight_v": rows[0].clone()}
    return found


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for theirs."""
    found = {}
    for name, tensor in state.items():
        for new, old in _NEW_NAMES.items():
            name = name.replace(new, old)
        found[name.removeprefix("module.")] = tensor
    return found


def _kind(state: Mapping[str, Tensor]) -> str:
    if any(name.endswith("running_mean") for name in state):
        return "generator"
    if any(name.startswith(("fc.", "reparam.")) for name in state):
        return "discriminator"
    first = ", ".join(list(state)[:3])
    raise _unfit(f"neither a generator nor a discriminator of MEE ({first}, ...)", "the released networks' names")


def _generator(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Settings and sample shape: the first convolution makes 4 x 4, each further one doubles it."""
    numbers = _convolutions(state)
    first, last = (_raw(state, f"model.{numbers[i]}") for i in (0, -1))
    size = 4 << (len(numbers) - 1)
    return {"latent": len(first), "width": len(last)}, (last.shape[1], size, size)


def _discriminator(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Settings and sample shape: each convolution halves the size, down to 4 x 4."""
    numbers = _convolutions(state)
    first = _raw(state, f"model.{numbers[0]}")
    size = 4 << len(numbers)
    reparameterised = any(name.startswith("reparam.") for name in state)
    head = _raw(state, "reparam" if reparameterised else "fc")
    settings = {
        "discriminator_width": len(first),
        "code": len(head) // (1 + reparameterised),
        "reparameterised": reparameterised,
        "unused_head": reparameterised and any(name.startswith("fc.") for name in state),
        "spectral_norm": f"model.{numbers[0]}.weight_orig" in state,
    }
    return settings, (first.shape[1], size, size)


def _convolutions(state: Mapping[str, Tensor]) -> list[int]:
    """Numbers of the members of `model` that have four-dimensional weights."""
    places = [(re.fullmatch(r"model\.(\d+)\.(weight|weight_orig)", name), tensor) for name, tensor in state.items()]
    numbers = sorted(int(match[1]) for match, tensor in places if match and tensor.ndim == 4)
    if not numbers:
        raise _unfit("no convolutions model.0, ... in it", "the released DCGAN networks")
    return numbers


def _raw(state: Mapping[str, Tensor], layer: str) -> Tensor:
    """A layer's weight as it is trained."""
    for name in _RAW:
        if f"{layer}.{name}" in state:
            return state[f"{layer}.{name}"]
    raise _unfit(f"no tensor {layer}.weight in it", "the released DCGAN networks")


def _unfit(problem: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"weights that do not fit: {problem}",
        expected,
        "give the files that the released training wrote, {epoch}gen.pth and {epoch}cls.pth",
    )
