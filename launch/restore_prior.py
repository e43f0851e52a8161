"""A trained prior from wherever it lies: a run of edm, or a pipeline of diffusers from a folder or the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.hub.diffusion_priors import open_pipeline_prior
from generative.hub.parts import INDEX
from generative.hub_names import HUB
from generative.methods.edm.config import AUTOENCODER, EdmConfig
from generative.methods.edm.method import NET, Edm
from generative.methods.stsl.prior import Map, Network, Prior, denoiser_prior
from generative.nets.edm_precond import class_labels
from generative.nets.kl_autoencoder import decoded, encoded
from launch.opened import open_run

BLOCKS, BLOCK = 64, 4096
"""Of a weights file, that are hashed; and bytes of each."""


@dataclass(frozen=True)
class PriorAsked:
    """Which prior: path or `hub:ID`, a class or a prompt, averaged or trained weights."""

    name: str
    label: int | None = None
    prompt: str = ""
    weights: str = "ema"


@dataclass(frozen=True)
class OpenPrior:
    """A prior that is ready: where it computes, what it is, and a hash of its weights and of what was asked."""

    prior: Prior
    device: torch.device
    about: str
    fingerprint: str


def open_prior(asked: PriorAsked) -> OpenPrior:
    """Open a prior for inference.

    Raises:
        ConfigError, CheckpointError, DataError, ResourceError: no such prior, or one that restores no images.
    """
    path = prior_folder(asked.name, "a run of edm, a folder of diffusers")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if (path / INDEX).is_file():
        prior = open_pipeline_prior(path, device, asked.prompt, asked.label)
        return OpenPrior(prior, device, prior.about, _hash(asked, weights_of_files(path)))
    return _of_run(path, asked, device)


def prior_folder(name: str, kinds: str) -> Path:
    """Where PRIOR lies, fetched if need be; `kinds`: what may be given; raises CheckpointError, ResourceError."""
    path = Path(name).expanduser()
    if name.startswith(HUB):
        path = _fetched(name.removeprefix(HUB))
    if not path.exists():
        raise CheckpointError(
            f"{name}: no such file or folder",
            f"{kinds}, or hub:OWNER/NAME",
            "correct PRIOR (`generative status runs` lists the runs there are)",
        )
    return path


def held_out_images(name: str, count: int) -> Tensor:
    """The first held-out images of a run's data, float32[count, C, H, W] in [-1, 1].

    Raises:
        ConfigError: no run, or one without held-out images.
    """
    path = Path(name).expanduser()
    if not path.is_dir() or (path / INDEX).is_file():
        raise ConfigError(
            f"held_out images of {name}, which is no run",
            "a run, whose data are known",
            "give images of your own as IN",
        )
    data = open_run(path).data
    there = 0 if data.validation is None else len(data.validation)
    if not there:
        raise ConfigError(f"{name} holds no images out", "a run with data.validation", "give images of your own as IN")
    images: Tensor = data.validation.fetch(np.arange(min(count, there)))["sample"]
    return images


def _of_run(path: Path, asked: PriorAsked, device: torch.device) -> OpenPrior:
    run = open_run(path)
    config = run.config.method
    if not isinstance(config, EdmConfig):
        raise ConfigError(
            f"{path} is a run of {config.name}, which is no diffusion model of images",
            "a run of edm, or a pipeline of diffusers",
            "train one: generative train edm/restore",
        )
    nets, worn = run.networks(asked.weights)
    for net in nets.values():
        net.requires_grad_(False)
    image = tuple(run.data.facts.sample_shape)
    label = _label(asked.label, run.data.facts.classes or 0, config, path)
    about = f"{path}, step {run.checkpoint.step}, {worn} weights"
    about += "" if config.latents is None else f", latents {_by(run.method.shape)}"
    encode, decode = _doors(nets, run.method)
    prior = denoiser_prior(
        _denoiser(nets[NET], label),
        run.method.shape,
        config.sampling.sigma_max,
        about=about,
        image=image,
        encode=encode,
        decode=decode,
    )
    weights = [f"{name} {_digest(weight)}" for net in nets.values() for name, weight in net.state_dict().items()]
    weights += [] if config.latents is None else [f"scale {run.method.scale}"]
    return OpenPrior(prior, device, about, _hash(asked, weights))


def _denoiser(net: nn.Module, label: Tensor | None) -> Network:
    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        labels = None if label is None else label.to(x.device).expand(len(x), -1)
        found: Tensor = net(x.float(), sigma.float(), labels)
        return found

    return denoise


def _doors(nets: Mapping[str, nn.Module], method: Edm) -> tuple[Map | None, Map | None]:
    """Encoder (to the posterior's mean, so that it is deterministic) and decoder of a model of latents."""
    if method.config.latents is None:
        return None, None
    net, scale = nets[AUTOENCODER], method.scale

    def encode(x: Tensor) -> Tensor:
        return encoded(net, x.float(), scale).to(x.dtype)

    def decode(z: Tensor) -> Tensor:
        return decoded(net, z.float(), scale).to(z.dtype)

    return encode, decode


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _label(asked: int | None, classes: int, config: EdmConfig, path: Path) -> Tensor | None:
    """One-hot, or None for no class."""
    if asked is not None:
        if not 0 <= asked < classes:
            raise ConfigError(
                f"--label {asked} for {path}", f"0 .. {classes - 1}" if classes else "no label", "correct --label"
            )
        return class_labels(torch.tensor([asked]), classes)
    if classes and not config.label_dropout:
        raise ConfigError(
            f"{path} was trained with classes only (label_dropout=0): it knows no image without one",
            "a prior that knows images of any class, or --label",
            "give --label 0 .., or train with method.label_dropout=0.5 (generative train edm/restore)",
        )
    return None


def _fetched(name: str) -> Path:
    """A pipeline from the hub, in the local cache: its networks' safetensors and configurations, no pickles."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ResourceError(
            "the hub needs the package huggingface_hub", "an installation with it", "pip install 'generative[hub]'"
        ) from error
    try:
        kept = ["*.json", "*.txt", "*.safetensors"]
        return Path(snapshot_download(name, allow_patterns=kept, ignore_patterns=["*.fp16.*", "safety_checker/*"]))
    except Exception as error:  # network, permissions, unknown names: many kinds, one meaning
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"hub:{name} cannot be fetched: {reason[:200]}",
            "a pipeline of diffusers with safetensors that can be reached",
            "correct the name; or download the model, and give its folder",
        ) from error


def weights_of_files(folder: Path) -> list[str]:
    """Names, sizes and blocks here and there of weights (no training leaves them as they are); configurations whole."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors":
            found.append(f"{path.relative_to(folder)} {path.stat().st_size} {_sampled(path)}")
        elif path.suffix == ".json":
            found.append(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return found


def _sampled(path: Path) -> str:
    """Hash of evenly spaced blocks of a file, its ends among them."""
    told, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        for place in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * place // (BLOCKS - 1))
            told.update(file.read(BLOCK))
    return told.hexdigest()


def _digest(weight: Tensor) -> str:
    return hashlib.sha256(weight.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def _hash(asked: PriorAsked, parts: list[str]) -> str:
    told = [*parts, str(asked.label), asked.prompt, asked.weights]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
