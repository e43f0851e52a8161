"""The networks of a configuration.

Generators: forward(z [B, Z], valid=None) -> samples [B, *shape].
Discriminators: forward(x [B, *shape], noise=None, iterate=True) -> codes [B, m]; see `generative.nets.codes`.
"""

from __future__ import annotations

from collections.abc import Sequence

from generative.methods.mee_gan.config import DcganConfig, MeeGanConfig, MlpGanConfig
from generative.nets.dcgan import DcganDiscriminator, DcganGenerator
from generative.nets.mlp_gan import MlpDiscriminator, MlpGenerator
from generative.nets.resnet_gan import ResnetDiscriminator, ResnetGenerator

Generator = DcganGenerator | ResnetGenerator | MlpGenerator
Discriminator = DcganDiscriminator | ResnetDiscriminator | MlpDiscriminator


def build_generator(config: MeeGanConfig, sample_shape: Sequence[int]) -> Generator:
    """The generator for samples of a shape; ConfigError where the network cannot make them."""
    network = config.network
    if isinstance(network, DcganConfig):
        return DcganGenerator(config.latent, sample_shape, network.width)
    if isinstance(network, MlpGanConfig):
        return MlpGenerator(config.latent, sample_shape, network.generator, network.bounded, network.init_std)
    return ResnetGenerator(config.latent, sample_shape, network.width)


def build_discriminator(config: MeeGanConfig, sample_shape: Sequence[int]) -> Discriminator:
    """The discriminator for samples of a shape; ConfigError where the network cannot take them."""
    network, code = config.network, config.code
    reparameterised, spectral, unused = config.reparameterised, config.spectral_norm, config.unused_head
    if isinstance(network, DcganConfig):
        width = network.discriminator_width or network.width
        return DcganDiscriminator(
            sample_shape, width, code, reparameterised=reparameterised, spectral=spectral, unused_head=unused
        )
    if isinstance(network, MlpGanConfig):
        return MlpDiscriminator(
            sample_shape,
            network.discriminator,
            code,
            maxout=network.maxout,
            init_std=network.init_std,
            reparameterised=reparameterised,
            spectral=spectral,
            unused_head=unused,
        )
    return ResnetDiscriminator(
        sample_shape, code, network.width, reparameterised=reparameterised, spectral=spectral, unused_head=unused
    )
