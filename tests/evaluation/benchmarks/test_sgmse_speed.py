"""The published form that SGMSE is timed against computes what ours does: transforms, losses, averages, waves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.benchmarks import sgmse_speed
from evaluation.benchmarks.plain_ncsnpp import plain_copy
from evaluation.benchmarks.plain_sgmse import PlainEma, PlainTraining, enhance, to_spectrogram, to_wave
from evaluation.benchmarks.sgmse_cases import OurTraining, check_losses, check_waves, crops, network, recordings
from evaluation.benchmarks.sgmse_speed import Case
from generative.method import DataFacts
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.enhancer import Enhancer
from generative.methods.sgmse.method import Sgmse
from generative.methods.sgmse.noise import StreamNoise
from generative.methods.sgmse.parts import spectrogram_of
from generative.randomness import Streams

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden" / "sgmse"
SMALL = {
    "network": {"name": "ncsnpp", "width": 8, "multipliers": [1, 2], "res_blocks": 1, "attention_levels": [1]},
    "sample_rate": 1000,
    "spectrogram": {"n_fft": 62, "hop": 16, "exponent": 0.6, "factor": 0.2},
    "frames": 12,
    "sampling": {"steps": 2, "snr": 0.4},
}
BRIDGE = SgmseConfig.model_validate(
    SMALL | {"process": {"name": "sbve"}, "wrapping": {"loss_type": "data_prediction"}, "l1_weight": 0.1}
)
SCORE = SgmseConfig.model_validate(SMALL | {"network": SMALL["network"] | {"variant": "v1"}})
CASE = Case(BRIDGE, batch=2, files=3, seconds=(0.3, 0.5))


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


def test_one_training_loss_and_its_gradient():
    net = network(BRIDGE, CPU).double()
    plain = PlainTraining(plain_copy(net), BRIDGE)
    x0, y, z = (torch.randn(3, 1, 32, 12, dtype=torch.complex128) for _ in range(3))
    t = torch.tensor([0.001, 0.4, 0.99], dtype=torch.float64)
    objective = Sgmse(BRIDGE, DataFacts(sample_shape=(BRIDGE.length,))).objective
    found = plain.loss(x0, y, t, z)
    wanted = objective.terms(net, x0, y, objective.noised(x0, y, t, z))["loss"].mean()
    # The published weight of y is a factor 1 + 1e-8 off ours.
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0)
    gradients = [
        torch.autograd.grad(loss, each)[0]
        for loss, each in ((found, plain.net.output_layer.weight), (wanted, net.output.weight))
    ]
    close(*gradients, 1e-6)


def test_waves_and_spectrograms():
    wave = torch.randn(2, 333, dtype=torch.float64)
    ours = spectrogram_of(BRIDGE)
    compressed = to_spectrogram(wave, BRIDGE.spectrogram)
    close(compressed, ours.forward(wave), 1e-9)
    back = to_wave(compressed, BRIDGE.spectrogram, 333)
    close(back, wave, 1e-9)
    close(ours.inverse(compressed, 333), back, 1e-9)


@pytest.mark.parametrize("config", [BRIDGE, SCORE], ids=["bridge", "score"])
def test_enhanced_waves_with_the_same_noise(config):
    net = network(config, CPU).eval()
    waves = recordings(config, 4, (0.3, 0.6))
    assert len({len(wave) for wave in waves}) == 4
    assert all(300 <= len(wave) <= 600 for wave in waves)
    found = Enhancer(config, net).enhance(waves, range(4), Streams(3))
    for number, (one, wave) in enumerate(zip(found, waves, strict=True)):
        wanted = enhance(plain_copy(net), config, wave, partial(StreamNoise, Streams(3), torch.tensor([number])))
        heard = len(wave) - config.spectrogram.n_fft  # after it the published form hears its padding
        close(one.wave[:heard], wanted[:heard], 1e-3)
    fresh = enhance(plain_copy(net), config, waves[0])
    assert torch.equal(fresh, enhance(plain_copy(net), config, waves[0])) == (config is BRIDGE)


def test_the_published_average():
    with np.load(GOLDEN / "ema.npz") as golden:
        values, wanted, decay = (torch.tensor(golden[name]) for name in ("params", "shadow", "decay"))
    weight = values[0].clone()
    average = PlainEma([weight], decay.item())
    for value, shadow in zip(values[1:], wanted, strict=True):
        weight.copy_(value)
        average.update()
        close(average.shadows[0], shadow, 1e-6)


def test_steps_train_both_networks():
    net, batch = network(BRIDGE, CPU), crops(BRIDGE, 2, CPU)
    plain, ours = PlainTraining(plain_copy(net), BRIDGE, lr=1e-3), OurTraining(net, BRIDGE, lr=1e-3)
    before = plain.net.output_layer.weight.detach().clone()
    assert torch.equal(before, net.output.weight)
    plain.step(batch["clean"], batch["noisy"])
    ours.step(batch)
    for weight, average in (
        (plain.net.output_layer.weight, plain.average.shadows[0]),
        (net.output.weight, ours.average.average["output.weight"]),
    ):
        moved = (weight - before).abs()
        # Adam's first step is the learning rate, whatever the gradient's size.
        torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-2, atol=0)
        close(average - before, 9 / 11 * (weight - before), 1e-3)


def test_other_computations_are_refused():
    batch, waves = crops(BRIDGE, 2, CPU), recordings(BRIDGE, 2, (0.3, 0.5))
    net = network(BRIDGE, CPU)
    plain, ours = PlainTraining(plain_copy(net), BRIDGE), OurTraining(net, BRIDGE)
    enhancer = Enhancer(BRIDGE, net)
    check_losses(ours, plain, batch)
    check_waves(enhancer, plain.net, waves)
    with torch.no_grad():
        plain.net.output_layer.bias += 0.1
    with pytest.raises(RuntimeError, match="not the same computation"):
        check_losses(ours, plain, batch)
    with pytest.raises(RuntimeError, match="enhanced file 0"):
        check_waves(enhancer, plain.net, waves)


def test_figures():
    figures = sgmse_speed.figures(2, case=CASE)
    assert {name: entry["goal"] for name, entry in figures.items()} == {
        "train_speedup": ">= 1.3",
        "train_speedup_depthwise": None,
        "enhance_speedup_equal_calls": ">= 1.2",
        "enhance_speedup_depthwise": None,
    }
    assert all(entry["value"] > 0 and entry["n"] == 2 for entry in figures.values())
    assert "3 files, 2 network calls each" in figures["enhance_speedup_equal_calls"]["protocol"]


def test_time_at_equal_quality_is_of_one_model_with_two_samplers():
    reference, chosen = (
        SCORE.model_copy(update={"sampling": type(SCORE.sampling).model_validate(sampling)})
        for sampling in ({"sampler": "predictor_corrector", "steps": 4}, {"sampler": "exponential", "steps": 1})
    )
    found = sgmse_speed.equal_quality(reference, chosen, 3, Case(files=2, seconds=(0.3, 0.5)))
    assert 0 < found.low <= found.estimate.value <= found.high
