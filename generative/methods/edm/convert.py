"""Published networks (NVlabs/edm, `edm-*.pkl`) for ours. Tensors have the same names and shapes; settings are renamed.

A file describes the averaged network (`ema`) by its class EDMPrecond, the arguments that it was made with, and tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from generative.config_messages import explain
from generative.errors import CheckpointError
from generative.method import DataFacts
from generative.methods.edm.config import AUGMENT_LABELS, EdmConfig

CLASS = "EDMPrecond"
SHARED = {
    "model_channels": "width",
    "channel_mult": "multipliers",
    "channel_mult_emb": "embedding_multiplier",
    "num_blocks": "blocks",
    "attn_resolutions": "attention",
    "dropout": "dropout",
}
SONG = {
    "embedding_type": "embedding",
    "channel_mult_noise": "noise_multiplier",
    "encoder_type": "encoder",
    "decoder_type": "decoder",
    "resample_filter": "filter",
}
"""Their names for ours."""
UNTOLD: Mapping[str, Mapping[str, Any]] = {
    "SongUNet": {"name": "song", "multipliers": (1, 2, 2, 2), "blocks": 4, "attention": (16,), "dropout": 0.10},
    "DhariwalUNet": {"name": "dhariwal"},
}
"""Values of what a file does not tell, by their class, where they are not our own."""
KNOWN = {"img_resolution", "img_channels", "label_dim", "model_type", "augment_dim", "label_dropout", "sigma_data"}
IGNORED = {"use_fp16", "sigma_min", "sigma_max"}
"""How they compute, and bounds that no training or sampling reaches."""
PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Released:
    """What a file holds.

    Args:
        config: of this network; what the file does not tell is as by default.
        facts: shape and classes of its data.
        state: its state dict.
    """

    config: EdmConfig
    facts: DataFacts
    state: Mapping[str, Tensor]


def from_released(kind: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Released:
    """Our configuration and network.

    Args:
        kind: class of the network.
        arguments: that it was made with.
        tensors: its state dict.

    Raises:
        CheckpointError: another class (VPPrecond, VEPrecond, ...), or arguments that are not known or cannot be.
    """
    if kind != CLASS:
        raise _unfit(f"a network of the class {kind}", f"{CLASS}, as the files edm-*.pkl have")
    _check_plain(arguments)
    model = arguments.get("model_type", "DhariwalUNet")
    if not isinstance(model, str) or model not in UNTOLD:
        raise _unfit(f"a U-Net of the class {model}", f"one of {', '.join(UNTOLD)}")
    names = SHARED | (SONG if model == "SongUNet" else {})
    unknown = sorted(set(arguments) - set(names) - KNOWN - IGNORED)
    if unknown:
        raise _unfit(f"an argument {unknown[0]!r} of its network, which is not known here", f"of {model}")
    augment = arguments.get("augment_dim", 0)
    if augment not in (0, AUGMENT_LABELS):
        raise _unfit(f"a network with {augment} labels of augmentation", f"{AUGMENT_LABELS} of them, or none")
    network = {**UNTOLD[model], **{ours: arguments[theirs] for theirs, ours in names.items() if theirs in arguments}}
    classes = arguments.get("label_dim", 0)
    values = {
        "network": network,
        "classes": classes,
        "sigma_data": arguments.get("sigma_data", 0.5),
        "label_dropout": arguments.get("label_dropout", 0.0),
        "augmentation": {"labels": bool(augment)},
    }
    try:
        config = EdmConfig.model_validate(values)
        side, channels = int(arguments["img_resolution"]), int(arguments["img_channels"])
        if min(side, channels) < 1:
            raise ValueError("an image has pixels")
    except ValidationError as error:
        wrong = explain(error.errors()[0], values, lambda key: "", ())
        raise _unfit(f"in its arguments, {wrong.problem}", wrong.expected) from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _unfit("arguments without a size of images", "img_resolution and img_channels") from error
    facts = DataFacts(sample_shape=(channels, side, side), classes=classes or None)
    return Released(config, facts, dict(tensors))


def _check_plain(arguments: Mapping[Any, Any]) -> None:
    """Refuse what no network is made with, before anything is compared with it. Raises CheckpointError."""
    for name, value in arguments.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not isinstance(name, str) or not all(isinstance(part, PLAIN) for part in parts):
            kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
            problem = f"an argument {str(name)[:40]!r} ({type(name).__name__}) that is {kinds}"
            raise _unfit(problem, "names, with numbers, words or lists of them")


def _unfit(problem: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"weights that do not fit: {problem}", expected, "give a file edm-*.pkl as it was published (NVlabs/edm)"
    )
