"""Settings of the released program, as its checkpoints tell them, for ours, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from generative.config_messages import explain
from generative.errors import CheckpointError, suggestion
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.layout import Variant, unfit
from generative.nets.ncsnpp_config import NcsnppConfig

BACKBONES: Mapping[str, Variant] = {"ncsnpp": "v1", "ncsnpp_v2": "v2", "ncsnpp_48k": "48k"}
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "": {"sr": "sample_rate", "num_frames": "frames", "normalize": "normalize"},
    "sampling": {"N": "steps"},
    "spectrogram": {
        "n_fft": "n_fft",
        "hop_length": "hop",
        "window": "window",
        "transform_type": "transform",
        "spec_abs_exponent": "exponent",
        "spec_factor": "factor",
    },
    "wrapping": {name: name for name in ("loss_type", "network_scaling", "c_in", "c_out", "c_skip", "sigma_data")},
}
"""Their names for ours, by our sections."""
PROCESSES: Mapping[str, tuple[str, ...]] = {
    "ouve": ("theta", "sigma_min", "sigma_max", "t_eps"),
    "sbve": ("k", "c", "t_eps"),
    "bbed": ("k", "theta", "t_eps"),
}
RATE_48K = 48000
"""At which the released program enhances with the 48k backbone, whatever `sr` says: that is of its validation, and
16000 where nobody set it."""
RATE = 16000
T_EPS = 0.03
"""Of their training, whatever the process."""
IMAGE_SIZE = 256
"""What their heights of attention refer to where they tell nothing, whatever the number of bins."""
UNSCALED = "none"
"""Ours for their None."""


def from_hyper_parameters(told: Mapping[str, Any], sizes: NcsnppConfig) -> SgmseConfig:
    """Our configuration; what is not told is as in the first released version (ncsnpp, ouve).

    Args:
        told: the program's settings; those that are no plain values, or not about the model, are left aside.
        sizes: of the network, from its tensors.

    Raises:
        CheckpointError: a backbone or process that is not known, a value that cannot be, or sizes that differ.
    """
    if "sde_n" in told:  # an early name
        told = {"N": told["sde_n"], **told}
    told = {name: value for name, value in told.items() if isinstance(value, str | int | float | list | tuple)}
    network = _network(told, sizes)
    values: dict[str, Any] = {"network": network, "process": _process(told)}
    for section, names in SECTIONS.items():
        found: dict[str, Any] = {ours: told[theirs] for theirs, ours in names.items() if theirs in told}
        values |= {section: found} if section else found
    if network.variant == "48k" and values.get("sample_rate", RATE) == RATE:
        values["sample_rate"] = RATE_48K
    # The released program pads with zeros for its first network, and by reflection for the others.
    values["sampling"]["padding"] = "zero" if network.variant == "v1" else "reflection"
    values["wrapping"] = _wrapping(values["wrapping"], network)
    if "ema_decay" in told:
        values["ema"] = [told["ema_decay"]]
    try:
        return SgmseConfig.model_validate(values)
    except ValidationError as error:
        told_of = explain(error.errors()[0], values, lambda key: "", ())
        raise unfit(f"in its settings, {told_of.problem}", told_of.expected) from error


def to_hyper_parameters(config: SgmseConfig, network: NcsnppConfig) -> dict[str, Any]:
    """The program's settings, as plain values; `network`: that of `config`."""
    process = config.process.model_dump()
    values = config.model_dump()
    found = {
        theirs: (values[section] if section else values)[ours]
        for section, names in SECTIONS.items()
        for theirs, ours in names.items()
    }
    if found["network_scaling"] == UNSCALED:
        found["network_scaling"] = None
    sizes = {theirs: list(v) if isinstance(v, tuple) else v for theirs, v in _sizes(network, config.bins).items()}
    return {
        **found,
        **sizes,
        "backbone": next(theirs for theirs, variant in BACKBONES.items() if variant == network.variant),
        "centered": network.centered,
        "image_size": config.bins,
        "sde": process["name"],
        **{name: process[name] for name in PROCESSES[process["name"]]},
        **({"ema_decay": config.ema[0]} if config.ema else {}),
    }


def _sizes(network: NcsnppConfig, bins: int) -> dict[str, Any]:
    """What both the settings and the tensors tell."""
    return {
        "nf": network.width,
        "ch_mult": network.multipliers,
        "num_res_blocks": network.res_blocks,
        "attn_resolutions": tuple(bins >> level for level in network.attention_levels),
    }


def _network(told: Mapping[str, Any], sizes: NcsnppConfig) -> NcsnppConfig:
    """The sizes, with what only the settings tell, if both tell the same."""
    backbone = str(told.get("backbone", "ncsnpp"))
    if backbone not in BACKBONES:
        raise _unknown("backbone", backbone, BACKBONES)
    variant = BACKBONES[backbone]
    if (variant == "48k") != (sizes.variant == "48k"):
        raise unfit(f"hyper_parameters.backbone={backbone}, with tensors of {sizes.variant}", "tensors of the backbone")
    image_size = told.get("image_size")
    bins = image_size if isinstance(image_size, int) else IMAGE_SIZE
    for name, found in _sizes(sizes, bins).items():
        claimed = told.get(name, found)
        claimed = tuple(claimed) if isinstance(claimed, list | tuple) else claimed
        if name == "attn_resolutions" and isinstance(claimed, tuple):  # heights that no level has have no effect
            claimed = tuple(n for n in (bins >> level for level in range(len(sizes.multipliers))) if n in claimed)
        if claimed != found:
            raise unfit(f"hyper_parameters.{name}={told[name]!r}, but the tensors are of {found!r}", "one network's")
    return sizes.model_copy(update={"variant": variant, "centered": bool(told.get("centered", True))})


def _process(told: Mapping[str, Any]) -> dict[str, Any]:
    name = str(told.get("sde", "ouve"))
    if name == "bbve":  # an early name of bbed, with k where another process has sigma_max
        told = {**told, "k": told.get("sigma_max", told.get("k"))}
        name = "bbed"
    if name not in PROCESSES:
        raise _unknown("sde", name, PROCESSES)
    found = {key: told[key] for key in PROCESSES[name] if told.get(key) is not None}
    return {"name": name, "t_eps": T_EPS} | found


def _wrapping(found: Mapping[str, Any], network: NcsnppConfig) -> dict[str, Any]:
    """The first version's wrapper heeds no scalings, though its program has the options."""
    loss_type = found.get("loss_type", "score_matching")
    loss_type = "score_matching" if loss_type == "mse" else loss_type  # an early name
    if network.variant == "v2":
        return {**found, "loss_type": loss_type}
    if loss_type != "score_matching":
        raise unfit(f"hyper_parameters.loss_type={loss_type} with a network of {network.variant}", "score_matching")
    return {}


def _unknown(name: str, value: Any, known: Iterable[str]) -> CheckpointError:
    return unfit(f"hyper_parameters.{name}={value!r}{suggestion(str(value), known)}", f"one of {', '.join(known)}")
