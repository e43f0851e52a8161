"""The networks that a configuration distils: EDM's, for data of a shape and number of classes."""

from __future__ import annotations

from functools import partial

import torch

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.methods.f_distill.latent_config import LatentUNetConfig
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_size import size_of


def parts_of(config: FDistillConfig, facts: DataFacts) -> DenoiserParts:
    """What the method needs of the teacher's kind of network.

    Args:
        config: with `network`, which `generative train` reads from the teacher.
        facts: of the data.

    Raises:
        ConfigError: the teacher is not known, was trained on samples of another shape or number of classes, or knows
            classes where the data have none.
    """
    if config.network is None:
        raise ConfigError(
            "method.network is not given, and there is no teacher to read it from",
            expected="a diffusion model to distil",
            remedy="set method.teacher to a run, checkpoint or export of the method edm; for a pipeline of diffusers "
            "method.network={name: stable_diffusion} too",
        )
    if isinstance(config.network, LatentUNetConfig):
        from generative.methods.f_distill.stable_diffusion import configured_parts

        return configured_parts(config, config.network, facts)
    _check_shape(config, facts)
    size = size_of(facts, "f_distill", config.classes, config.augment_labels)
    build = partial(EdmNetwork, config.network.model_copy(update={"dropout": 0.0}), size, config.sigma_data)
    with torch.device("meta"):
        net = build()
    return DenoiserParts(
        build,
        (size.channels, size.side, size.side),
        size.classes,
        [FeatureMap(channels, side) for channels, side in net.feature_maps],
        net.multiply_adds(),
        net.multiply_adds(encoder_only=True),
    )


def _check_shape(config: FDistillConfig, facts: DataFacts) -> None:
    """Student and teacher make the same: raises ConfigError for data of another shape, or of other classes."""
    shape = facts.sample_shape
    if config.shape is not None and shape is not None and tuple(shape) != config.shape:
        raise ConfigError(
            f"a teacher of samples of shape {list(config.shape)}, and data of shape {list(shape)}",
            expected="one shape for teacher, student and data",
            remedy="take the data that the teacher was trained on, or another teacher",
        )
    if config.classes and not facts.classes:
        raise ConfigError(
            f"a teacher of {config.classes} classes, and data without labels",
            expected="data with a class for each sample, which student and teacher share",
            remedy="set data.classes=true (folder) or data.label_column (hub), or take a teacher without classes",
        )
    if config.classes and facts.classes != config.classes:
        raise ConfigError(
            f"a teacher of {config.classes} classes, and data with {facts.classes}",
            expected="the classes that the teacher was trained on, which student and teacher share",
            remedy="take the data that the teacher was trained on, or another teacher",
        )
