"""The sampler of a configuration: from a noisy spectrogram to an estimate of the clean one."""

from __future__ import annotations

from torch import Tensor

from generative.methods.sgmse.bridges import SBVE
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.parts import process_of, wrapping_of
from generative.methods.sgmse.samplers.bridge import bridge
from generative.methods.sgmse.samplers.common import Sampled, Span
from generative.methods.sgmse.samplers.exponential import exponential
from generative.methods.sgmse.samplers.flow import heun, ode
from generative.methods.sgmse.samplers.predictor_corrector import predictor_corrector
from generative.methods.sgmse.wrapping import Network

BRIDGE_END = 1e-4
"""Earliest time of the released bridge samplers."""


def sampler_name(config: SgmseConfig) -> str:
    """That of `sampling.sampler`, with auto resolved."""
    if config.sampling.sampler != "auto":
        return config.sampling.sampler
    return "bridge_ode" if config.is_bridge else "predictor_corrector"


def sampler_text(config: SgmseConfig) -> str:
    """The sampler with the settings that it heeds, for reports."""
    chosen, name = config.sampling, sampler_name(config)
    told = [name, f"N={chosen.steps}" if name != "ode" else f"tolerance {chosen.tolerance:g}"]
    if name == "predictor_corrector":
        of_corrector = [] if chosen.corrector == "none" else [f"{chosen.corrector_steps} a step", f"snr {chosen.snr:g}"]
        told += [f"corrector {chosen.corrector}", *of_corrector]
    if name == "exponential":
        told += [f"order {chosen.order}", *(["stochastic"] if chosen.stochastic else [])]
    if chosen.start is not None and not name.startswith("bridge"):
        told.append(f"from t={chosen.start:g}")
    if name.startswith("bridge") and chosen.network_time == "previous":
        told.append("told the time of its state")
    if chosen.attenuation_limit is not None:
        told.append(f"takes away at most {chosen.attenuation_limit:g} dB")
    return ", ".join(told)


def span_of(config: SgmseConfig) -> Span:
    """Times that the sampler goes through.

    Raises:
        ConfigError: `sampling.start` or `sampling.end` outside of the process's time, or one beyond the other.
    """
    chosen, process = config.sampling, process_of(config)
    if sampler_name(config).startswith("bridge"):
        return Span.of(process, None, chosen.end or BRIDGE_END)
    return Span.of(process, chosen.start, chosen.end)


def sampled(config: SgmseConfig, net: Network, y: Tensor, noise: Noise, frames: Tensor | None = None) -> Sampled:
    """Draw from the model, given the noisy spectrogram.

    Args:
        config: with the section `sampling`.
        net: the raw network.
        y: complex [B, 1, F, K].
        noise: see the samplers.
        frames: int64[B], frames of each item before padding.
    """
    chosen, name, process = config.sampling, sampler_name(config), process_of(config)
    score, denoiser = (make(net, process) for make in (wrapping_of(config).score, wrapping_of(config).denoiser))
    span = span_of(config)
    steps, start, end = chosen.steps, span.start, span.end
    match name:
        case "bridge_ode" | "bridge_sde":
            assert isinstance(process, SBVE)
            return bridge(
                denoiser,
                process,
                y,
                noise,
                steps=steps,
                kind="ode" if name == "bridge_ode" else "sde",
                network_time=chosen.network_time,
                end=end,
                least_network_time=chosen.least_network_time,
            )
        case "exponential":
            options = {"order": chosen.order, "stochastic": chosen.stochastic, "spacing": chosen.spacing}
            return exponential(denoiser, process, y, noise, steps=steps, start=start, end=end, **options)  # type: ignore[arg-type]
        case "heun":
            return heun(score, process, y, noise, steps=steps, start=start, end=end)
        case "ode":
            limit = chosen.tolerance
            return ode(score, process, y, noise, rtol=limit, atol=limit, start=start, end=end, frames=frames)
        case _:
            plain = name == "euler_maruyama"
            return predictor_corrector(
                score,
                process,
                y,
                noise,
                steps=steps,
                corrector="none" if plain else chosen.corrector,
                corrector_steps=chosen.corrector_steps,
                snr=chosen.snr,
                step_rule="uniform" if plain else chosen.step_rule,
                start=start,
                end=end,
                frames=frames,
            )
