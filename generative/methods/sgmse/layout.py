"""Names of the released NCSN++ (`all_modules.N...`, a flat list) for ours, and sizes from shapes.

The released list is in the order in which modules are first run: time embedding, stem, down, middle, up. `parameters()`
of the released network, and so the averages in its checkpoints, has `output_layer` before it all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.nets.ncsnpp import Ncsnpp
from generative.nets.ncsnpp_config import NcsnppConfig

Variant = Literal["v1", "v2", "48k"]
FREQUENCIES = "time.frequencies"
PLAIN = {"": ""}
BLOCK = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "time": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
    "shortcut": "Conv_2",
}
ATTENTION = {"norm": "GroupNorm_0", "query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}
COMBINE = {"": "Conv_0"}
TURNED = re.compile(r"\.NIN_\d\.W$")
"""Released matrices [inputs, outputs], where ours are [outputs, inputs]."""

Part = tuple[str, Mapping[str, str]]
"""Our module, and the released name of each of its layers."""


def released_names(config: NcsnppConfig) -> dict[str, str]:
    """The released name of each tensor of ours, in the order of the released `parameters()`."""
    ours = _shapes(config)
    names = {f"output.{kind}": f"output_layer.{kind}" for kind in ("weight", "bias")}
    names[FREQUENCIES] = "all_modules.0.W"
    for place, (module, layers) in enumerate(_in_released_order(config), start=1):
        for layer, released in layers.items():
            for kind in ("weight", "bias"):
                name = _joined(module, layer, kind)
                if name in ours:
                    theirs = kind[0].replace("w", "W") if released.startswith("NIN_") else kind
                    names[name] = _joined("all_modules", str(place), released, theirs)
    return names


def _in_released_order(config: NcsnppConfig) -> Iterator[Part]:
    levels = range(len(config.multipliers))
    pyramids = config.variant != "48k"
    yield from (("time.hidden", PLAIN), ("time.out", PLAIN), ("stem", PLAIN))
    for i in levels:
        for j in range(config.res_blocks):
            yield from _block(f"down.{i}.blocks.{j}", i in config.attention_levels)
        if i < levels[-1]:
            yield f"down.{i}.resample", BLOCK
            if pyramids:
                yield f"down.{i}.combine", COMBINE
    yield from _block("middle.0", attention=True)
    yield "middle.1", BLOCK
    for i in reversed(levels):
        for j in range(config.res_blocks + 1):
            yield from _block(f"up.{i}.blocks.{j}", j == config.res_blocks and i in config.attention_levels)
        if pyramids or i == 0:
            yield from ((f"up.{i}.read_out.norm", PLAIN), (f"up.{i}.read_out.conv", PLAIN))
        if i:
            yield f"up.{i}.resample", BLOCK


def _block(module: str, attention: bool) -> Iterator[Part]:
    yield module, BLOCK
    if attention:
        yield f"{module}.attention", ATTENTION


def _joined(*parts: str) -> str:
    return ".".join(filter(None, parts))


@lru_cache(maxsize=4)
def _shapes(config: NcsnppConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Ncsnpp(config).state_dict().items()}


def from_released(state: Mapping[str, Tensor], config: NcsnppConfig) -> dict[str, Tensor]:
    """Our state dict from the released network's.

    Raises:
        CheckpointError: a tensor is missing or of another shape, or one is there that such a network does not have.
    """
    names = released_names(config)
    shapes = _shapes(config)
    found = {ours: _turned(theirs, state[theirs]) for ours, theirs in names.items() if theirs in state}
    wrong = {
        "missing": [theirs for theirs in names.values() if theirs not in state],
        "unknown": sorted(state.keys() - set(names.values())),
        "of another shape": [names[ours] for ours, tensor in found.items() if tuple(tensor.shape) != shapes[ours]],
    }
    told = "; ".join(f"{len(n)} {what}: {', '.join(n[:3])}" for what, n in wrong.items() if n)
    if told:
        raise unfit(f"tensors of another network ({told})", f"the {len(names)} tensors of {config!r}")
    return found


def to_released(state: Mapping[str, Tensor], config: NcsnppConfig) -> dict[str, Tensor]:
    """The released network's state dict, in the order of its `parameters()`, from ours."""
    return {theirs: _turned(theirs, state[ours]) for ours, theirs in released_names(config).items()}


def _turned(theirs: str, tensor: Tensor) -> Tensor:
    return tensor.detach().T.contiguous() if TURNED.search(theirs) and tensor.ndim == 2 else tensor.detach()


@dataclass(frozen=True)
class _Module:
    """What the shapes tell of a member of `all_modules`; `resamples`: a block that changes the size."""

    kind: Literal["block", "attention", "combine", "other"]
    outputs: int = 0
    resamples: bool = False


def inferred_sizes(state: Mapping[str, Tensor], variant: Variant | None = None, centered: bool = True) -> NcsnppConfig:
    """Sizes of the released network that a state dict belongs to.

    On the way down, a block has a shortcut where channels change, or where the size does. With skip connections there
    are always more channels going in than out. So blocks with a shortcut between equal numbers of channels are those
    that resample, half of them on the way down.

    Args:
        state: released names and tensors.
        variant: v1 and v2 have the same tensors; None: v1, or 48k where there are no pyramids.
        centered: see `NcsnppConfig`; the tensors do not tell.

    Raises:
        CheckpointError: another network.
    """
    modules = _modules(state)
    width = state["all_modules.0.W"].numel() if "all_modules.0.W" in state else 0
    levels = _levels(modules, sum(module.resamples for module in modules) // 2)
    blocks = sum(module.kind == "block" and not module.resamples for module in levels[0])
    if not width or len(levels) < 2 or not blocks or not all(level and level[0].outputs >= width for level in levels):
        raise unfit("not the tensors of a released NCSN++ of two levels or more", "all_modules.0.W, and its blocks")
    pyramids = any(module.kind == "combine" for module in modules)
    if variant is not None and pyramids == (variant == "48k"):
        raise unfit(
            f"{'' if pyramids else 'no '}pyramids in a network that is named {variant}", f"tensors of {variant}"
        )
    return NcsnppConfig(
        variant=variant or ("v1" if pyramids else "48k"),
        width=width,
        multipliers=tuple(level[0].outputs // width for level in levels),
        res_blocks=blocks,
        attention_levels=tuple(i for i, level in enumerate(levels) if level[1:] and level[1].kind == "attention"),
        centered=centered,
    )


def _levels(modules: Sequence[_Module], steps: int) -> list[list[_Module]]:
    """Blocks and attentions of each level on the way down; after the last one's come those of the middle and so on."""
    levels: list[list[_Module]] = [[]]
    for module in modules:
        if module.kind not in ("block", "attention"):
            continue
        levels[-1].append(module)
        if module.resamples and len(levels) <= steps:
            levels.append([])
    return levels


def _modules(state: Mapping[str, Tensor]) -> list[_Module]:
    """Members of `all_modules` from 4 on, in order."""
    names: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"all_modules\.(\d+)\.(.+)", name)
        if match and int(match[1]) > 3:
            names.setdefault(int(match[1]), {})[match[2]] = tensor
    return [_module(names[place]) for place in sorted(names)]


def _module(tensors: Mapping[str, Tensor]) -> _Module:
    if "NIN_0.W" in tensors:
        return _Module("attention")
    first = tensors.get("Conv_0.weight")
    if first is None or first.ndim != 4:
        return _Module("other")
    if "Conv_1.weight" not in tensors:
        return _Module("combine")
    outputs, inputs = first.shape[:2]
    return _Module("block", outputs, resamples="Conv_2.weight" in tensors and inputs == outputs)


def unfit(problem: str, expected: str) -> CheckpointError:
    """The error of weights, or of a checkpoint, that are not such a network's."""
    return CheckpointError(
        f"a checkpoint that does not fit: {problem}",
        expected,
        "give a checkpoint of sgmse's ncsnpp, ncsnpp_v2 or ncsnpp_48k backbone",
    )
