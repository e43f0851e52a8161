"""Published checkpoints (sp-uhh/sgmse, Lightning's `.ckpt`) in and out.

A checkpoint has the network's tensors under `dnn.`, their averages as a list in the order of the network's parameters,
and the program's settings. It may have been written while the averages stood in the network (in validation); then the
list `collected_params` has the weights as trained. That list may also be left over from an earlier validation, so that
what the tensors are is seen from themselves: averages if they are equal to those of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.hyper_parameters import from_hyper_parameters, to_hyper_parameters
from generative.methods.sgmse.layout import from_released, inferred_sizes, released_names, to_released, unfit
from generative.nets.ncsnpp_config import NcsnppConfig

PREFIX = "dnn."
FIXED = "all_modules.0.W"
"""A parameter that takes no gradient, which older versions of the averaging left out of the list."""


@dataclass(frozen=True)
class Released:
    """What a checkpoint holds.

    Args:
        config: of this network, its process, loss and spectrogram.
        trained: state dict of the weights as trained, under our names.
        averaged: of their averages; None: the checkpoint has none.
        updates: of the averages, as far as they are told.
    """

    config: SgmseConfig
    trained: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    updates: int = 0


def from_lightning(checkpoint: Mapping[str, Any]) -> Released:
    """Networks and settings of a released checkpoint, as `hub.legacy.read_checkpoint` reads it.

    Sizes follow from the tensors; those that the settings tell must be the same.

    Raises:
        CheckpointError: another method's checkpoint, missing or surplus tensors, other shapes, other sizes than told,
            settings that are not known.
    """
    state = _network_state(checkpoint)
    told = checkpoint.get("hyper_parameters")
    told = told if isinstance(told, Mapping) else {}
    config = from_hyper_parameters(told, inferred_sizes(state))
    network = _ncsnpp(config)
    here = from_released(state, network)
    ema = checkpoint.get("ema")
    if not isinstance(ema, Mapping):
        return Released(config, here, None)
    averages = _listed(ema.get("shadow_params"), "ema.shadow_params", state, network)
    trained = here
    kept = ema.get("collected_params")
    if kept is not None and all(torch.equal(averages[name], here[name]) for name in here):
        trained = _listed(kept, "ema.collected_params", state, network)
    updates = ema.get("num_updates")
    return Released(config, trained, averages, updates if isinstance(updates, int) else 0)


def _ncsnpp(config: SgmseConfig) -> NcsnppConfig:
    if isinstance(config.network, NcsnppConfig):
        return config.network
    raise CheckpointError(
        f"a network {config.network.name}, of which no checkpoints are published",
        "network.name=ncsnpp",
        "export with --layout generative",
    )


def _network_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of the network; what belongs to losses (`pesq_loss.`) is left out."""
    state = checkpoint.get("state_dict")
    tensors = state.items() if isinstance(state, Mapping) else ()
    found = {
        name.removeprefix(PREFIX): tensor.detach()
        for name, tensor in tensors
        if isinstance(name, str) and name.startswith(PREFIX) and _plain(tensor)
    }
    if not found:
        first = ", ".join(str(name) for name in list(state if isinstance(state, Mapping) else checkpoint)[:4])
        raise unfit(f"no network in it ({first or 'nothing'}, ...)", f"a state_dict with tensors {PREFIX}...")
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _listed(values: Any, key: str, state: Mapping[str, Tensor], network: NcsnppConfig) -> dict[str, Tensor]:
    """A list in the order of the released parameters as a state dict of ours."""
    names = list(released_names(network).values())
    values = list(values) if isinstance(values, Sequence) else []
    if len(values) == len(names) - 1:
        names.remove(FIXED)
    if len(values) != len(names) or not all(map(_plain, values)):
        raise unfit(f"{key} has {len(values)} entries", f"a tensor for each of the {len(names)} parameters")
    found = {FIXED: state[FIXED]} | dict(zip(names, values, strict=True))
    return from_released(found, network)


def to_lightning(
    config: SgmseConfig, trained: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None = None, updates: int = 0
) -> dict[str, Any]:
    """A checkpoint that the released code loads, but for the class of its data module, which it must be given
    (`ScoreModel.load_from_checkpoint(path, data_module_cls=SpecsDataModule)`): we name no classes in files.

    Args:
        config: of the network.
        trained: state dict of ours.
        averaged: of its averages; None: those of a run that has just begun, the weights themselves.
        updates: of the averages.

    Raises:
        CheckpointError: another network than NCSN++.
    """
    network = _ncsnpp(config)
    averages = to_released(trained if averaged is None else averaged, network)
    return {
        "epoch": 0,
        "global_step": updates,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": {PREFIX + name: tensor for name, tensor in to_released(trained, network).items()},
        "hparams_name": "kwargs",
        "hyper_parameters": to_hyper_parameters(config, network),
        "ema": {
            "decay": config.ema[0] if config.ema else 0.999,
            "num_updates": updates,
            "shadow_params": list(averages.values()),
            "collected_params": None,
        },
    }
