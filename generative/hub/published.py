"""Published weights, read for their method."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from generative.errors import CheckpointError, ConfigError
from generative.hub import published_text
from generative.hub.legacy import read_checkpoint, read_state_dict
from generative.hub.published_model import Published
from generative.hub.published_text import CONFIG
from generative.method import DataFacts
from generative.registry import Registry


@dataclass(frozen=True)
class Reader:
    """How a method's published files are read.

    Args:
        pattern: regular expression that begins the names of its files.
        companion: of a file name, that of a file that belongs to it, wherever it is there too; None: there is none.
        folder: it reads config.json and all files of weights in a folder, which must be asked for by --method.
        read: the files -> what they hold; raises CheckpointError.
    """

    pattern: str
    read: Callable[[Sequence[Path]], Published]
    companion: Callable[[str], str | None] = lambda name: None
    folder: bool = False


def _mee_gan(paths: Sequence[Path]) -> Published:
    from generative.methods.mee_gan.convert import from_released
    from generative.methods.mee_gan.network import build_discriminator, build_generator

    found = from_released(*(read_state_dict(path) for path in paths))
    build: dict[str, Callable[[], nn.Module]] = {
        "generator": lambda: build_generator(found.config, found.shape),
        "discriminator": lambda: build_discriminator(found.config, found.shape),
    }
    facts = DataFacts(sample_shape=found.shape)
    return Published(found.config, facts, found.networks, build, "unconditional-image-generation")


def _mee_gan_companion(name: str) -> str | None:
    stem, dot, suffix = name.rpartition(".")
    other = {"gen": "cls", "cls": "gen"}.get(stem[-3:])
    return f"{stem[:-3]}{other}{dot}{suffix}" if other else None


def _sgmse(paths: Sequence[Path]) -> Published:
    from generative.methods.sgmse.convert import from_lightning
    from generative.methods.sgmse.network import build_network

    found = from_lightning(read_checkpoint(paths[0]))
    config, trained = found.config, {"net": found.trained}
    facts = DataFacts(sample_shape=((config.frames - 1) * config.spectrogram.hop,))
    build = {"net": lambda: build_network(config)}
    if found.averaged is None:
        return Published(config, facts, trained, build, "audio-to-audio")
    return Published(config, facts, {"net": found.averaged}, build, "audio-to-audio", trained)


def _edm(paths: Sequence[Path]) -> Published:
    from generative.hub.described import Described, read_described
    from generative.methods.edm.convert import from_released
    from generative.methods.edm.network import build_network

    network = read_described(paths[0]).get("ema")
    if not isinstance(network, Described):
        raise CheckpointError(
            f"{paths[0]} holds no averaged network", "a network under the name ema", "give a file edm-*.pkl"
        )
    arguments = network.fields.get("_init_kwargs")
    found = from_released(
        network.kind, arguments if isinstance(arguments, Mapping) else {}, dict(network.named_tensors())
    )
    build = {"net": lambda: build_network(found.config, found.facts)}
    return Published(found.config, found.facts, {"net": found.state}, build, "unconditional-image-generation")


def _kl_vae(paths: Sequence[Path]) -> Published:
    from generative.hub.model_files import read_json
    from generative.methods.kl_vae.convert import from_folder
    from generative.methods.kl_vae.method import NET, build_network

    told = read_json(paths[0].with_name(KL_VAE_CONFIG))
    if told is None:
        raise CheckpointError(
            f"{paths[0]} has no {KL_VAE_CONFIG} beside it", "both, as diffusers writes them", "fetch it too"
        )
    found = from_folder(told, read_state_dict(paths[0]))
    build = {NET: lambda: build_network(found.config, found.facts)}
    return Published(found.config, found.facts, {NET: found.state}, build, "image-to-image")


KL_VAE_CONFIG = "config.json"

NEVER = r"(?!)"
"""Fits no name: such files are called alike by everybody."""

READERS: Registry[Reader] = Registry(
    "method with published checkpoints",
    {
        "masked_diffusion": Reader(r"mdm-\d+M-", published_text.masked_diffusion),
        "autoregressive": Reader(r"ar-\d+M-", published_text.autoregressive),
        "llada": Reader(NEVER, published_text.llada, folder=True),
        "mdlm": Reader(NEVER, published_text.mdlm, folder=True),
        "mee_gan": Reader(r"\d*(gen|cls)\.", _mee_gan, _mee_gan_companion),
        "sgmse": Reader(r".+\.ckpt$", _sgmse),
        "edm": Reader(r".+\.pkl$", _edm),
        "kl_vae": Reader(r"diffusion_pytorch_model\.(safetensors|bin)$", _kl_vae, lambda name: KL_VAE_CONFIG),
    },
)


def choose_reader(name: str, method: str | None) -> Reader:
    """The reader of a method, or of the one that names its files so.

    Args:
        name: of the file.
        method: as asked for; None: to be seen from the name.

    Raises:
        ConfigError: no such method, or a name that tells nothing.
    """
    if method is not None:
        return READERS[method]
    for reader in READERS.values():
        if re.match(reader.pattern, name):
            return reader
    raise ConfigError(
        f"{name}: the name does not tell which method the weights are of",
        f"one of the methods {', '.join(READERS)}",
        "give --method",
    )


def find_files(path: Path, reader: Reader) -> list[Path]:
    """The file, and its companion where there is one beside it; of a folder config.json and the weights in it.

    Raises:
        CheckpointError: no such file, or no safetensors in the folder.
    """
    if reader.folder:
        weights = sorted(path.glob("*.safetensors")) if path.is_dir() else []
        if not weights or not (path / CONFIG).is_file():
            raise CheckpointError(
                f"{path} is no folder with {CONFIG} and weights (*.safetensors)",
                "a model in the layout of Hugging Face",
                "give the folder, without --file; pickles (.bin) are not read here",
            )
        return [path / CONFIG, *weights]
    check_file(path)
    other = reader.companion(path.name)
    return [path, *([path.with_name(other)] if other and path.with_name(other).is_file() else [])]


def check_file(path: Path) -> None:
    """Raise CheckpointError if there is no such file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", "a file of published weights", "correct the path")
