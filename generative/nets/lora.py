"""Changes of low rank in the transformer itself, by peft (LoRA: Hu et al. 2021, arXiv 2106.09685).

peft puts a layer of its own in the place of each that is changed: W is called NAME.base_layer.weight then, A and B
NAME.lora_A.default.weight [r, in] and NAME.lora_B.default.weight [out, r]; the layer computes W x + alpha / r B A x. B
starts as zeros. W is frozen, and part of the run's checkpoints all the same, so that a run needs nothing beside itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from torch import Tensor, nn

from generative.errors import ConfigError
from generative.nets.adapters import chosen_layers
from generative.nets.lora_config import FineTuningConfig
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

BASE, DOWN, UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


def build_transformer(
    config: TransformerConfig, lora: FineTuningConfig | None, *, causal: bool, mask_row: bool
) -> Transformer:
    """A transformer, with changes of low rank where they are asked for; raises ConfigError (see `add_changes`)."""
    net = Transformer(config, causal=causal, mask_row=mask_row)
    if lora is not None:
        add_changes(net, lora)
    return net


def add_changes(net: nn.Module, config: FineTuningConfig) -> None:
    """Put changes into a network in place, and freeze the rest of it.

    Raises:
        ConfigError: peft is not installed, or a pattern fits nothing.
    """
    peft = _peft()
    layers = chosen_layers(net, config.layers, lambda part: isinstance(part, nn.Linear))
    before = set(net.state_dict())
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(layers), lora_dropout=0.0, bias="none"
    )
    peft.inject_adapter_in_model(settings, net)
    parameters = dict(net.named_parameters())
    for pattern in config.whole:
        if not any(fnmatch(name, pattern) for name in parameters):
            raise ConfigError(
                f"method.lora.whole: {pattern!r} fits no parameter of the network",
                f"a pattern on names such as {', '.join(map(repr, list(parameters)[:3]))}",
                "correct the pattern",
            )
    for name, parameter in parameters.items():
        changes = name.endswith((DOWN, UP))
        parameter.requires_grad_(changes or any(fnmatch(name, pattern) for pattern in config.whole))
    # Weights of a network without changes may start one with them (`generative.training.networks`).
    renamed = {f"{name}.weight": f"{name}{BASE}" for name in layers}
    net.renamed_weights = renamed  # type: ignore[assignment]
    net.added_weights = frozenset(set(net.state_dict()) - before - set(renamed.values()))  # type: ignore[assignment]


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "method.lora needs the package peft, which is not installed",
            "an installation with it",
            "pip install 'generative[lora]', or leave method.lora out",
        ) from error
    return peft


def changed_layers(names: Mapping[str, Any]) -> list[str]:
    """Names of the layers that have changes, from those of their weights."""
    return [name.removesuffix(DOWN) for name in names if name.endswith(DOWN)]


def merged(weights: Mapping[str, Tensor], config: FineTuningConfig) -> dict[str, Tensor]:
    """Weights of the network without changes that computes the same: W + alpha / r B A, in fp32 or better."""
    return dict(_merge(weights, config.alpha / config.rank))


def _merge(weights: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights.items():
        if name.endswith(BASE):
            layer = name.removesuffix(BASE)
            change = weights[layer + UP].double() @ weights[layer + DOWN].double()
            yield f"{layer}.weight", (weight.double() + scale * change).to(weight.dtype)
        elif not name.endswith((DOWN, UP)):
            yield name, weight
