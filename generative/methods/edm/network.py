"""The network of a configuration, for data of a shape and number of classes."""

from __future__ import annotations

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.edm.config import EdmConfig
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize


def build_network(config: EdmConfig, facts: DataFacts) -> EdmNetwork:
    """The denoiser. Raises ConfigError: see `size_of`, `EdmNetwork`."""
    return EdmNetwork(config.network, size_of(config, facts), config.sigma_data)


def size_of(config: EdmConfig, facts: DataFacts) -> UNetSize:
    """What the data tell the network.

    Raises:
        ConfigError: they are no square images, or of another number of classes than the configuration says.
    """
    shape = tuple(facts.sample_shape or ())
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ConfigError(
            f"the method edm with samples of shape {list(shape) if shape else 'unknown'}",
            expected="square images [C, R, R]",
            remedy="set data.name to digits, stacked_digits, folder or hub, with data.size and data.resize=true",
        )
    if config.classes and facts.classes and config.classes != facts.classes:
        raise ConfigError(
            f"method.classes={config.classes}, but the data have {facts.classes} classes",
            expected="as many classes as the data have, or 0 for a network that is told none",
            remedy=f"set method.classes={facts.classes}",
        )
    classes = (facts.classes or 0) if config.classes is None else config.classes
    return UNetSize(shape[1], shape[0], classes, config.augment_labels)
