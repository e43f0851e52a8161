"""The enhancer: independence of company, silence, lengths, levels, and every sampler by its name."""

from __future__ import annotations

import pytest
import torch

from generative.method import DataFacts
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.method import Sgmse
from generative.methods.sgmse.sampling import sampler_text
from generative.randomness import Streams

SMALL = {
    "network": {"name": "ncsnpp", "width": 4, "multipliers": [1, 2], "res_blocks": 1, "attention_levels": []},
    "spectrogram": {"n_fft": 62, "hop": 16},
    "frames": 32,
}
BRIDGE = {"process": {"name": "sbve"}, "wrapping": {"loss_type": "data_prediction"}}
STREAMS = Streams(3)


def enhancer(batch_size: int = 8, **settings):
    config = SgmseConfig.model_validate(SMALL | settings)
    method = Sgmse(config, DataFacts(sample_shape=(config.length,)))
    torch.manual_seed(0)
    net = method.networks()["net"].build().eval()
    with torch.no_grad():  # the published start answers nothing at all
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method.enhancer({"net": net}, batch_size)


def waves(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [0.3 * torch.randn(n, generator=generator) for n in lengths]


@pytest.mark.parametrize("sampler", ["predictor_corrector", "ode", "exponential"])
def test_company_and_batches_change_nothing(sampler):
    section = {"sampler": sampler, "steps": 2, "corrector": "langevin", "tolerance": 0.02, "stochastic": True}
    section |= {"window": 32, "start": 0.7}
    noisy = waves(700, 701, 690, 333, 1100, 5)
    together = enhancer(8, sampling=section).enhance(noisy, range(6), STREAMS)
    by_two = enhancer(2, sampling=section).enhance(noisy, range(6), STREAMS)
    for place, (wave, one, other) in enumerate(zip(noisy, together, by_two, strict=True)):
        alone = enhancer(1, sampling=section).enhance([wave], [place], STREAMS)[0]
        assert len(one.wave) == len(wave)
        assert one.calls == other.calls == alone.calls
        torch.testing.assert_close(one.wave, alone.wave, rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(one.wave, other.wave, rtol=1e-3, atol=2e-4)


def test_silence_stays_silence_without_a_call():
    silent, loud = enhancer(sampling={"steps": 2}).enhance([torch.zeros(400), waves(400)[0]], [0, 1], STREAMS)
    assert silent.wave.abs().max() == 0
    assert (silent.calls, loud.calls) == (0, 4)


def test_a_louder_file_gives_a_louder_result():
    wave = waves(900)[0]
    quiet, loud = enhancer(sampling={"steps": 2}).enhance([wave, 8 * wave], [5, 5], STREAMS)
    torch.testing.assert_close(loud.wave, 8 * quiet.wave, rtol=1e-5, atol=1e-6)


def test_a_limit_leaves_its_share_of_the_noisy_wave():
    """20 dB: a tenth stays; 0 dB: nothing is taken away; and the limit is told."""
    wave, other = waves(900, 2000)
    of = {limit: enhancer(sampling={"steps": 2, "attenuation_limit": limit}) for limit in (None, 0.0, 20.0)}
    free, whole, tenth = ([one.wave for one in of[limit].enhance([wave, other], [5, 6], STREAMS)] for limit in of)
    for noisy, estimate, same, mixed in zip((wave, other), free, whole, tenth, strict=True):
        torch.testing.assert_close(same, noisy, rtol=0, atol=0)
        torch.testing.assert_close(mixed, 0.9 * estimate + 0.1 * noisy, rtol=1e-5, atol=1e-7)
    assert sampler_text(of[20.0].config).endswith("takes away at most 20 dB")
    assert "dB" not in sampler_text(of[None].config)


def test_noise_depends_on_id_and_seed():
    wave = waves(900)[0]
    first, same, other = enhancer(sampling={"steps": 2}).enhance([wave, wave, wave], [5, 5, 6], STREAMS)
    assert torch.equal(first.wave, same.wave)
    assert not torch.allclose(first.wave, other.wave)
    seeded = enhancer(sampling={"steps": 2}).enhance([wave], [5], Streams(4))[0]
    assert not torch.allclose(first.wave, seeded.wave)


CALLS = {
    ("auto", 3): ("predictor_corrector, N=3, corrector ald, 1 a step, snr 0.5", 6),
    ("euler_maruyama", 3): ("euler_maruyama, N=3", 3),
    ("heun", 3): ("heun, N=3", 7),
    ("exponential", 3): ("exponential, N=3, order 2", 3),
}


@pytest.mark.parametrize(("name", "steps"), CALLS)
def test_calls_are_counted_and_told(name, steps):
    one = enhancer(sampling={"sampler": name, "steps": steps})
    text, calls = CALLS[name, steps]
    assert sampler_text(one.config) == text
    assert one.enhance(waves(500), [0], STREAMS)[0].calls == calls


@pytest.mark.parametrize("name", ["auto", "bridge_sde", "exponential", "heun"])
def test_bridges_have_samplers_of_their_own(name):
    start = {"start": 0.9} if name == "heun" else {}
    one = enhancer(**BRIDGE, sampling={"sampler": name, "steps": 2, **start})
    assert sampler_text(one.config).startswith("bridge_ode" if name == "auto" else name)
    (found,) = one.enhance(waves(500), [0], STREAMS)
    assert found.wave.isfinite().all()
    assert found.calls == (5 if name == "heun" else 2)


def test_a_network_that_answers_the_noisy_one_leaves_the_wave_as_it_is():
    config = enhancer(**BRIDGE, sampling={"sampler": "exponential", "steps": 3}).config
    identity = Enhancer(config, lambda x_t, y, t: y)
    for wave in waves(777, 20, 640):
        (found,) = identity.enhance([wave], [0], STREAMS)
        torch.testing.assert_close(found.wave, wave, rtol=1e-4, atol=1e-5)
