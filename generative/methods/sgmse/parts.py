"""The parts that a configuration names."""

from __future__ import annotations

from generative.methods.sgmse.bridges import BBED, SBVE
from generative.methods.sgmse.config import BbedConfig, OuveConfig, SgmseConfig
from generative.methods.sgmse.losses import pesq_loss
from generative.methods.sgmse.objective import Objective
from generative.methods.sgmse.processes import OUVE, Process
from generative.methods.sgmse.spectrogram import Spectrogram
from generative.methods.sgmse.wrapping import Wrapping


def process_of(config: SgmseConfig) -> Process:
    """The forward process."""
    section = config.process
    if isinstance(section, OuveConfig):
        return OUVE(section.theta, section.sigma_min, section.sigma_max, section.t_eps)
    if isinstance(section, BbedConfig):
        return BBED(section.k, section.theta, section.t_eps)
    return SBVE(section.k, section.c, t_eps=section.t_eps)


def wrapping_of(config: SgmseConfig) -> Wrapping:
    """What the network's output means."""
    return Wrapping(version=config.version, **config.wrapping.model_dump())


def spectrogram_of(config: SgmseConfig) -> Spectrogram:
    """From waves to spectrograms and back."""
    return Spectrogram(**config.spectrogram.model_dump())


def objective_of(config: SgmseConfig) -> Objective:
    """What is minimised.

    Raises:
        ConfigError: the PESQ term without its package.
    """
    return Objective(
        process_of(config),
        wrapping_of(config),
        spectrogram_of(config),
        config.weighting,
        config.l1_weight,
        config.pesq_weight,
        pesq_loss(config.sample_rate) if config.pesq_weight else None,
    )
