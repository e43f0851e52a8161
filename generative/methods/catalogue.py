"""The methods that a configuration may name. Building one imports it; naming one does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generative.config import Config
from generative.registry import Registry

if TYPE_CHECKING:
    from generative.method import DataFacts, Method


@dataclass(frozen=True)
class MethodEntry:
    """One method.

    Args:
        config: returns the class of its configuration section (imported on the call).
        build: makes the method from its section and what it must know of the data.
    """

    config: Callable[[], type[Config]]
    build: Callable[[Any, DataFacts], Method]


def _masked_diffusion_config() -> type[Config]:
    from generative.methods.masked_diffusion.config import MaskedDiffusionConfig

    return MaskedDiffusionConfig


def _masked_diffusion(config: Any, facts: DataFacts) -> Method:
    from generative.methods.masked_diffusion.method import MaskedDiffusion

    return MaskedDiffusion(config, facts)


def _autoregressive_config() -> type[Config]:
    from generative.methods.autoregressive.config import AutoregressiveConfig

    return AutoregressiveConfig


def _autoregressive(config: Any, facts: DataFacts) -> Method:
    from generative.methods.autoregressive.method import Autoregressive

    return Autoregressive(config, facts)


def _mee_gan_config() -> type[Config]:
    from generative.methods.mee_gan.config import MeeGanConfig

    return MeeGanConfig


def _mee_gan(config: Any, facts: DataFacts) -> Method:
    from generative.methods.mee_gan.method import MeeGan

    return MeeGan(config, facts)


def _sgmse_config() -> type[Config]:
    from generative.methods.sgmse.config import SgmseConfig

    return SgmseConfig


def _sgmse(config: Any, facts: DataFacts) -> Method:
    from generative.methods.sgmse.method import Sgmse

    return Sgmse(config, facts)


def _edm_config() -> type[Config]:
    from generative.methods.edm.config import EdmConfig

    return EdmConfig


def _edm(config: Any, facts: DataFacts) -> Method:
    from generative.methods.edm.method import Edm

    return Edm(config, facts)


def _f_distill_config() -> type[Config]:
    from generative.methods.f_distill.config import FDistillConfig

    return FDistillConfig


def _f_distill(config: Any, facts: DataFacts) -> Method:
    from generative.methods.f_distill.method import FDistill
    from generative.methods.f_distill.network import parts_of

    return FDistill(config, parts_of(config, facts))


def _text_to_image_config() -> type[Config]:
    from generative.methods.text_to_image.config import TextToImageConfig

    return TextToImageConfig


def _text_to_image(config: Any, facts: DataFacts) -> Method:
    from generative.methods.text_to_image.method import TextToImage

    return TextToImage(config, facts)


def _kl_vae_config() -> type[Config]:
    from generative.methods.kl_vae.config import KlVaeConfig

    return KlVaeConfig


def _kl_vae(config: Any, facts: DataFacts) -> Method:
    from generative.methods.kl_vae.method import KlVae

    return KlVae(config, facts)


METHODS: Registry[MethodEntry] = Registry(
    "method",
    {
        "masked_diffusion": MethodEntry(_masked_diffusion_config, _masked_diffusion),
        "autoregressive": MethodEntry(_autoregressive_config, _autoregressive),
        "mee_gan": MethodEntry(_mee_gan_config, _mee_gan),
        "sgmse": MethodEntry(_sgmse_config, _sgmse),
        "edm": MethodEntry(_edm_config, _edm),
        "f_distill": MethodEntry(_f_distill_config, _f_distill),
        "kl_vae": MethodEntry(_kl_vae_config, _kl_vae),
        "text_to_image": MethodEntry(_text_to_image_config, _text_to_image),
    },
)
