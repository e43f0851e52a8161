"""Changes of low rank to the layers of a frozen network (LoRA: Hu et al. 2021, arXiv 2106.09685).

The frozen network is not copied: it is handed in at each call and shared with whoever else uses it, so that a second
network costs its adapters alone in weights, gradients, optimizer and checkpoint. peft wraps a network that it owns and
renames; here one that another engine holds is changed for the length of a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any, cast

from torch import Tensor, nn

from generative.errors import ConfigError
from generative.nets.uncompiled import uncompiled


class LowRank(nn.Module):
    """alpha / rank B A x beside a layer; B starts as zeros, so that nothing is changed at first.

    Args:
        layer: linear, or a convolution without groups.
        rank: rows of A, columns of B.
        alpha: see above.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down: nn.Linear | nn.Conv2d
        self.up: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(
                layer.in_channels,
                rank,
                cast("tuple[int, int]", layer.kernel_size),
                cast("tuple[int, int]", layer.stride),
                cast("str | tuple[int, int]", layer.padding),
                cast("tuple[int, int]", layer.dilation),
                bias=False,
                padding_mode=layer.padding_mode,
            )
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the layer's output, in x's type."""
        found: Tensor = self.scale * self.up(self.down(x.to(self.down.weight.dtype)))
        return found.to(x.dtype)


class Adapters(nn.Module):
    """A network that is another one with changes of low rank.

    Args:
        template: a network of the other's form; the meta device will do.
        rank: of the changes.
        alpha: they are multiplied by alpha / rank.
        layers: shell patterns on the names of the layers that are changed. Linear layers and plain convolutions can be;
            convolutions with groups, or that resample on the way, stay as they are.

    Raises:
        ConfigError: a pattern that fits no layer.
    """

    def __init__(self, template: nn.Module, rank: int, alpha: float, layers: Sequence[str] = ("*",)) -> None:
        super().__init__()
        chosen = chosen_layers(template, layers, _changeable)
        # Names of modules may not have dots in them.
        self.places = {name: name.replace(".", "/") for name in chosen}
        self.changes = nn.ModuleDict(
            {self.places[name]: LowRank(cast("nn.Linear", part), rank, alpha) for name, part in chosen.items()}
        )

    @uncompiled
    def forward(self, *inputs: Any, base: Callable[..., Any], **options: Any) -> Any:
        """What `base`, changed, makes of `inputs` and `options`; `base` itself is afterwards as it was.

        Args:
            inputs: of the network.
            base: it, or a wrapper that has it as `module`.
            options: further arguments of it.
        """
        network = cast("nn.Module", base)
        network = cast("nn.Module", getattr(network, "module", network))
        handles = [
            network.get_submodule(name).register_forward_hook(_adding(self.changes[place]))
            for name, place in self.places.items()
        ]
        try:
            return base(*inputs, **options)
        finally:
            for handle in handles:
                handle.remove()


def chosen_layers(
    network: nn.Module, patterns: Sequence[str], changeable: Callable[[nn.Module], bool]
) -> dict[str, nn.Module]:
    """The layers that can be changed and whose names fit one of the shell patterns.

    Raises:
        ConfigError: a pattern that fits no layer.
    """
    found = {name: part for name, part in network.named_modules() if changeable(part)}
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in found):
            raise ConfigError(
                f"method.lora.layers: {pattern!r} fits no linear layer or convolution of the network",
                f"a pattern on names such as {', '.join(map(repr, list(found)[:3]))}",
                "correct the pattern, or leave method.lora.layers out for all of them",
            )
    return {name: part for name, part in found.items() if any(fnmatch(name, each) for each in patterns)}


def _changeable(part: nn.Module) -> bool:
    # Subclasses compute something else.
    return type(part) is nn.Linear or (type(part) is nn.Conv2d and part.groups == 1)


def _adding(change: nn.Module) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        changed: Tensor = output + change(inputs[0]).to(output.dtype)
        return changed

    return hook
