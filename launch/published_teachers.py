"""Published text-to-image models as teachers of a distillation: what a pipeline of diffusers tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PIPELINE = "stable_diffusion"
"""The network that says so (`method.network.name`)."""


def is_published(method: Any) -> bool:
    """Whether a section `method`, checked or not, distils a pipeline."""
    network = method.get("network") if isinstance(method, Mapping) else getattr(method, "network", None)
    name = network.get("name") if isinstance(network, Mapping) else getattr(network, "name", None)
    return name == PIPELINE


def of_pipeline(method: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the pipeline tells, as settings of the section `method`; None where it is not at hand but all is given.

    A repository that is not on this machine is asked only where its settings are not given, so that a plan of published
    settings fetches nothing.

    Raises:
        CheckpointError, ConfigError: no such pipeline, or one of another kind.
    """
    from generative.methods.f_distill.stable_diffusion import told_by_pipeline

    teacher, network = str(method["teacher"]), dict(method["network"])
    given = network.get("unet") is not None and network.get("schedule") is not None
    if given and not at_hand(teacher, network.get("revision")):
        return None
    return told_by_pipeline(teacher, network) | {
        "sigma_data": method.get("sigma_data", 0.5),
        "teacher_steps": None,
        "teacher_weights": "trained",
    }


def fetch(method: Any) -> None:
    """Make sure that a pipeline's settings are on this machine, so that they can be read as the run's.

    Raises:
        CheckpointError, ConfigError: no such pipeline, or one of another kind.
    """
    if not at_hand(method.teacher, method.network.revision):
        from generative.methods.f_distill.stable_diffusion import told_by_pipeline

        told_by_pipeline(method.teacher, method.network.model_dump(mode="json"))


def at_hand(teacher: str, revision: str | None = None) -> bool:
    """Whether a pipeline's files are on this machine."""
    if Path(teacher).expanduser().is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(teacher, "model_index.json", revision=revision), str)
    except HFValidationError:  # a path, not a name
        return False


def name_encoder(data: Any, method: Mapping[str, Any]) -> None:
    """Captions are encoded by the teacher's own networks unless others are named."""
    if isinstance(data, dict) and data.get("name") == "captions" and isinstance(method.get("teacher"), str):
        data.setdefault("model", method["teacher"])
        network = method.get("network")
        revision = network.get("revision") if isinstance(network, Mapping) else None
        if revision and data["model"] == method["teacher"]:
            data.setdefault("revision", revision)
