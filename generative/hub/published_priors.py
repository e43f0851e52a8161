"""Published diffusion models of images (guided-diffusion's ADM, latent-diffusion) as pipelines of diffusers.

Files are read without running what is in them (`generative.hub.legacy`); every tensor is accounted for. What a file
does not tell is given as settings, or as by default: `size` (side of what is denoised), `head_width`, `scale` (of
latents).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.data.packages import needed
from generative.errors import CheckpointError, ConfigError, suggestion
from generative.hub.first_stage_keys import to_autoencoder
from generative.hub.legacy import SAFETENSORS, read_checkpoint, read_state_dict
from generative.hub.parts import Part
from generative.hub.unet_keys import prefixed, to_unet
from generative.training.networks import compare_weights

UNET, FIRST, AVERAGED, TEXT = "model.diffusion_model.", "first_stage_model.", "model_ema.", "cond_stage_model."
SCALE = "scale_factor"
SCHEDULE = ("betas", "alphas_", "sqrt_", "log_", "posterior_", "lvlb_weights", "logvar", SCALE)
"""Beginnings of buffers that the betas tell."""
NEAR = 1e-5
"""Relative difference of betas of a schedule that has a name."""


@dataclass(frozen=True)
class PublishedPrior:
    """A pipeline of diffusers.

    Args:
        pipeline: class in model_index.json.
        parts: networks and scheduler by name.
        notes: what a user should know.
    """

    pipeline: str
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()

    def check(self, where: str) -> None:
        """Every tensor of every network must be there, and nothing else.

        Raises:
            CheckpointError: what differs.
            DataError: diffusers is not installed.
        """
        library = needed("diffusers", package="diffusers", extra="erase", by="--method adm or ldm", instead="edm")
        for name, part in self.parts.items():
            if part.state:
                with torch.device("meta"):
                    net = getattr(library, part.kind).from_config(dict(part.config))
                compare_weights(net, {key: tuple(t.shape) for key, t in part.state.items()}, f"{where} ({name})")


@dataclass(frozen=True)
class PriorReader:
    """How files of a kind are read.

    Args:
        read: (file, settings, as trained) -> what it holds.
        defaults: settings that there are, and their values where they are not given; None: none is known.
    """

    read: Callable[[Path, Mapping[str, float | None], bool], PublishedPrior]
    defaults: Mapping[str, float | None]

    def settings(self, given: Mapping[str, str]) -> dict[str, float | None]:
        """All settings. Raises ConfigError: unknown names, or no numbers above 0."""
        found = dict(self.defaults)
        for name, text in given.items():
            if name not in found:
                raise ConfigError(
                    f"--set {name}={text}{suggestion(name, found)}", f"one of {', '.join(found)}", "correct --set"
                )
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if not (value > 0 and (name == "scale" or value.is_integer())):
                raise ConfigError(f"--set {name}={text}", "a number above 0", "correct --set")
            found[name] = value
        return found


def _adm(path: Path, settings: Mapping[str, float | None], as_trained: bool) -> PublishedPrior:
    """guided-diffusion: linear betas from 1e-4 to 0.02, noise and (with twice the channels) variances predicted."""
    if as_trained:
        raise ConfigError("--as-trained with --method adm", "files with one set of weights", "leave out --as-trained")
    size, width = _whole(settings, "size"), _whole(settings, "head_width")
    unet = to_unet(read_state_dict(path), str(path), size, width)
    learned = unet.config["out_channels"] == 2 * unet.config["in_channels"]
    scheduler = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "variance_type": "learned_range" if learned else "fixed_small",
        "clip_sample": True,
        "prediction_type": "epsilon",
    }
    notes = (f"images of {size} x {size} pixels and heads of {width} channels: the file tells neither (--set)",)
    return PublishedPrior("DDPMPipeline", {"unet": unet, "scheduler": Part(scheduler)}, notes)


def _ldm(path: Path, settings: Mapping[str, float | None], as_trained: bool) -> PublishedPrior:
    """latent-diffusion: unconditional models with a KL or VQ first stage."""
    state = _lightning(path)
    if any("transformer_blocks" in name for name in state) or any(name.startswith(TEXT) for name in state):
        raise CheckpointError(
            f"{path} is a model of texts or other conditions",
            "an unconditional latent diffusion model",
            "for Stable Diffusion: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER) of diffusers,"
            " then generative restore FOLDER",
        )
    strange = sorted(name for name in state if not name.startswith((UNET, FIRST, AVERAGED, *SCHEDULE)))
    if strange:
        raise CheckpointError(
            f"{path}: {', '.join(strange[:3])} {'is' if len(strange) == 1 else 'are'} not known here",
            f"networks below {UNET} and {FIRST}, averages below {AVERAGED}, and buffers of the schedule",
            "give the file as it was published",
        )
    size, width = _whole(settings, "size"), _whole(settings, "head_width")
    trained = prefixed(state, UNET)
    unet = to_unet(trained if as_trained else _averaged(state, trained), str(path), size, width)
    first = to_autoencoder(prefixed(state, FIRST), str(path), 0, 1.0)
    quantised = first.kind == "VQModel"
    scale = _scale(state, settings["scale"], quantised, path)
    side = size * 2 ** (len(first.config["block_out_channels"]) - 1)
    first = Part({**first.config, "sample_size": side, "scaling_factor": scale}, first.state)
    parts = {"vqvae" if quantised else "vae": first, "unet": unet, "scheduler": Part(_schedule(state, path))}
    notes = (
        f"latents of {size} x {size} and heads of {width} channels: the file tells neither (--set)",
        "weights as trained" if as_trained or AVERAGED + "decay" not in state else "averaged weights",
    )
    return PublishedPrior("LDMPipeline" if quantised else "LatentPipeline", parts, notes)


PRIORS: Mapping[str, PriorReader] = {
    "adm": PriorReader(_adm, {"size": 256.0, "head_width": 64.0}),
    # the width of heads is that of the published FFHQ configuration as we remember it
    "ldm": PriorReader(_ldm, {"size": 64.0, "head_width": 32.0, "scale": None}),
}
"""Files of published priors by the name that --method has for them."""


def _lightning(path: Path) -> dict[str, Tensor]:
    """The state dict of a Lightning checkpoint, or a bare one."""
    if path.suffix == SAFETENSORS:
        return read_state_dict(path)
    found = read_checkpoint(path)
    inner = found.get("state_dict", found)
    if not isinstance(inner, Mapping) or not all(isinstance(t, Tensor) for t in inner.values()):
        raise CheckpointError(
            f"{path} holds no state_dict of tensors", "a checkpoint of latent-diffusion", "correct FILE"
        )
    return {str(name): tensor for name, tensor in inner.items()}


def _averaged(state: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averages (their names have lost their dots); the weights as trained where there are none."""
    if not any(name.startswith(AVERAGED) for name in state):
        return dict(trained)
    names = {name: AVERAGED + f"{UNET.removeprefix('model.')}{name}".replace(".", "") for name in trained}
    missing = next((name for name, averaged in names.items() if averaged not in state), None)
    if missing is not None:
        raise CheckpointError(
            f"averages without {missing} ({names[missing]})", "an average of every weight", "give --as-trained"
        )
    return {name: state[averaged] for name, averaged in names.items()}


def _scale(state: Mapping[str, Tensor], given: float | None, quantised: bool, path: Path) -> float:
    if given is not None:
        return given
    if SCALE in state:
        return float(state[SCALE])
    if quantised:
        return 1.0
    raise CheckpointError(
        f"{path} does not tell what its latents are multiplied by",
        "scale_factor, in the file or in the configuration that it was published with",
        "give --set scale=...",
    )


def _schedule(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """DDIM as latent-diffusion has it: one later, down to the first alpha."""
    if "betas" not in state:
        raise CheckpointError(f"{path} has no betas", "a checkpoint of latent-diffusion", "correct FILE or --method")
    betas = state["betas"].double()
    first, last, count = float(betas[0]), float(betas[-1]), len(betas)
    named = {
        "linear": torch.linspace(first, last, count, dtype=torch.float64),
        "scaled_linear": torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64).square(),
    }
    known = next((name for name, values in named.items() if torch.allclose(betas, values, rtol=NEAR, atol=0)), None)
    told = {"trained_betas": betas.tolist()} if known is None else {"beta_schedule": known}
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": count,
        "beta_start": first,
        "beta_end": last,
        **told,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }


def _whole(settings: Mapping[str, float | None], name: str) -> int:
    value = settings[name]
    assert value is not None
    return int(value)
