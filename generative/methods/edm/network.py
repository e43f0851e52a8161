"""The networks of a configuration, for data of a shape and number of classes."""

from __future__ import annotations

from dataclasses import replace

from generative.data.packages import needed
from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.edm.config import EdmConfig, LatentsConfig
from generative.nets import edm_size
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize
from generative.nets.kl_autoencoder import KlAutoencoder
from generative.nets.kl_autoencoder_config import KlAutoencoderConfig


def build_network(config: EdmConfig, facts: DataFacts) -> EdmNetwork:
    """The denoiser. Raises ConfigError: see `size_of`, `EdmNetwork`."""
    return EdmNetwork(config.network, size_of(config, facts), config.sigma_data)


def size_of(config: EdmConfig, facts: DataFacts) -> UNetSize:
    """What the data (or their latents) tell the network; errors as `generative.nets.edm_size.size_of`."""
    if config.latents is not None:
        facts = replace(facts, sample_shape=latent_sizes(config.latents).latent_shape(facts.sample_shape))
    return edm_size.size_of(facts, "edm", config.classes, config.augment_labels)


def latent_sizes(latents: LatentsConfig) -> KlAutoencoderConfig:
    """Of the autoencoder. Raises ConfigError: they are not known."""
    if latents.network is None:
        raise ConfigError(
            "method.latents.network is not given, and there is no autoencoder to read it from",
            expected="a trained autoencoder",
            remedy="set method.latents.autoencoder to a run, checkpoint or export of the method kl_vae",
        )
    return latents.network


def build_autoencoder(latents: LatentsConfig, facts: DataFacts) -> KlAutoencoder:
    """The frozen network.

    Raises:
        ConfigError: its sizes are not known, or do not fit the images.
        DataError: diffusers is not installed.
    """
    sizes = latent_sizes(latents)
    sizes.latent_shape(facts.sample_shape)
    needed("diffusers", package="diffusers", extra="erase", by="method.latents", instead="method.latents=null")
    assert facts.sample_shape is not None
    return KlAutoencoder(sizes, facts.sample_shape)
