"""The network of a configuration, for data of a shape and number of classes."""

from __future__ import annotations

from generative.method import DataFacts
from generative.methods.edm.config import EdmConfig
from generative.nets import edm_size
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize


def build_network(config: EdmConfig, facts: DataFacts) -> EdmNetwork:
    """The denoiser. Raises ConfigError: see `size_of`, `EdmNetwork`."""
    return EdmNetwork(config.network, size_of(config, facts), config.sigma_data)


def size_of(config: EdmConfig, facts: DataFacts) -> UNetSize:
    """What the data tell the network; errors as `generative.nets.edm_size.size_of`."""
    return edm_size.size_of(facts, "edm", config.classes, config.augment_labels)
