"""A trained network for speech from wherever it lies: a run, a checkpoint, an exported folder, a published file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generative.config import Layers, validate
from generative.errors import ConfigError
from generative.hub.published import find_files
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.network import build_network
from generative.training.checkpoint import open_checkpoint
from generative.training.exported import CONFIG, ExportedWeights
from generative.training.networks import checkpoint_weights, load_weights
from generative.training.precision import under_autocast
from launch.opened import Changes, read_config, run_folder_of

NET = "net"


@dataclass(frozen=True)
class EnhanceModel:
    """A network with its settings.

    Args:
        config: of the method, with the sampler that was asked for.
        net: in eval mode, on `device`.
        device: where it computes.
        about: what it is, in a few words.
        fingerprint: the same for the same weights and settings.
    """

    config: SgmseConfig
    net: nn.Module
    device: torch.device
    about: str
    fingerprint: str

    def enhancer(self, batch_size: int) -> Enhancer:
        """Enhances waves of any length."""
        return Enhancer(self.config, self.net, self.device, batch_size)


def open_model(path: str | Path, changes: Changes, weights: str = "ema") -> EnhanceModel:
    """Open a model for inference; no data are needed.

    Args:
        path: run folder, checkpoint folder, exported or imported folder, or a published file (.ckpt).
        changes: dotted keys under `method.` with their values.
        weights: "ema" (where there is an average) or "trained".

    Raises:
        ConfigError, CheckpointError: no such model, of another method, or a change that is not valid.
    """
    path = Path(path).expanduser()
    if path.is_file():
        config, state, about = _published(path, weights)
    elif (path / CONFIG).is_file():
        config, state, about = _exported(path)
    else:
        return _of_run(path, changes, weights)
    return _model(_validated(config.model_dump(mode="json"), str(path), changes), state, about, "fp32")


def _of_run(path: Path, changes: Changes, weights: str) -> EnhanceModel:
    run = read_config(run_folder_of(path), changes)
    if run.kind != "speech":
        raise _other(path, run.method.name)
    checkpoint = open_checkpoint(path)
    rate = run.method.ema[0] if weights == "ema" and run.method.ema else None
    worn = "trained" if rate is None else f"ema {rate}"
    state = checkpoint_weights(checkpoint, NET, rate)
    return _model(run.method, state, f"{path}, step {checkpoint.step}, {worn} weights", run.train.precision)


def _exported(path: Path) -> tuple[SgmseConfig, Mapping[str, Tensor], str]:
    told: dict[str, Any] = json.loads((path / CONFIG).read_text())
    method = told.get("method")
    if not isinstance(method, dict) or method.get("name") != "sgmse":
        raise _other(path, str(method.get("name") if isinstance(method, dict) else told.get("model_type")))
    source, prefix = ExportedWeights(path), f"net/{NET}/param/"
    state = {name.removeprefix(prefix): source.tensor(name) for name in source.names()}
    return _validated(method, str(path / CONFIG)), state, f"{path}, {told.get('weights', 'trained')} weights"


def _published(path: Path, weights: str) -> tuple[SgmseConfig, Mapping[str, Tensor], str]:
    from generative.hub.published import READERS

    found = READERS["sgmse"].read(find_files(path, READERS["sgmse"]))
    found = found.as_trained() if weights == "trained" and found.trained is not None else found
    assert isinstance(found.method, SgmseConfig)
    return found.method, found.networks[NET], f"{path}, {weights} weights"


def _other(path: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{path} is a model of {name}, which does not enhance speech",
        "a run, checkpoint or export of the method sgmse",
        "`generative status runs` lists the runs there are",
    )


def _validated(values: Mapping[str, Any], place: str, changes: Changes | None = None) -> SgmseConfig:
    """The section `method`, with changes (dotted keys under `method.`) on top; mistakes are told with their place."""
    layers = Layers()
    layers.merge(dict(values), place, {})
    for key, value in (changes or {}).items():
        layers.put(key.removeprefix("method.").split("."), value)
    return validate(layers, SgmseConfig)


def _model(config: SgmseConfig, state: Mapping[str, Tensor], about: str, precision: str) -> EnhanceModel:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_network(config)
    load_weights(net, state, about)
    fingerprint = hashlib.sha256(config.model_dump_json().encode())
    for name in sorted(state):
        fingerprint.update(name.encode() + state[name].detach().cpu().contiguous().numpy().tobytes())
    placed = under_autocast(net.to(device).eval(), precision, device)
    return EnhanceModel(config, placed, device, about, fingerprint.hexdigest()[:16])
