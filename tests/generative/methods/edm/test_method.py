"""The method: its loss in closed form, its invariances, its samples, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from generative.config import load
from generative.errors import ConfigError
from generative.method import Context, DataFacts, PowerProfile
from generative.methods.catalogue import METHODS
from generative.methods.edm.config import EdmConfig, EdmSamplingConfig
from generative.methods.edm.loss import denoising_loss, loss_by_noise, noise_levels
from generative.methods.edm.method import Edm
from generative.methods.edm.sampler import EdmSampler
from generative.randomness import Streams
from generative.training.activations import FakeRun
from launch.schema import schema_for
from tests.support.edm import formula_weights

SHAPE = (2, 8, 8)
FACTS = DataFacts(sample_shape=SHAPE, classes=3)
NETWORK = {"name": "song", "width": 8, "multipliers": [1], "blocks": 1, "attention": [], "dropout": 0.0}


def method_of(facts=FACTS, network=None, **settings):
    return Edm(EdmConfig.model_validate({"network": NETWORK | (network or {})} | settings), facts)


def nets_of(method):
    nets = {name: spec.build() for name, spec in method.networks().items()}
    formula_weights(nets["net"])
    return nets


def batch_of(count=6, first=0):
    ids = torch.arange(first, first + count)
    sample = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))[ids] * 2 - 1
    return {"sample": sample, "label": ids % 3, "sample_id": ids, "position": ids, "valid": torch.ones(count).bool()}


def context_of(count=6, step=5):
    return Context(step, Streams(0, step).within("denoise"), count)


def loss_of(method, nets, batch):
    return method.loss(method.updates()[0], nets, batch, context_of())


def test_noise_levels_are_log_normal():
    sigma = noise_levels(Streams(0).normal("sigma", torch.arange(50_000), (), torch.float64), -1.2, 1.3)
    assert sigma.dtype == torch.float64
    assert sigma.log().mean().item() == pytest.approx(-1.2, abs=0.02)
    assert sigma.log().std().item() == pytest.approx(1.3, abs=0.02)


def test_the_loss_by_hand():
    clean, found = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.3)
    sigma = torch.tensor([0.5, 2.0], dtype=torch.float64)
    wanted = torch.tensor([0.09 * (0.25 + 0.25) / 0.0625, 0.09 * (4 + 0.25) / 1.0])
    torch.testing.assert_close(denoising_loss(found, clean, sigma, 0.5), wanted)


def test_the_weight_makes_the_network_s_own_error_of_unit_weight():
    """lambda c_out^2 = 1: with D = c_skip x the loss is |y - c_skip x|^2 / c_out^2, of expectation 1 for data of the
    standard deviation that is told."""
    n = 40_000
    drawn = torch.Generator().manual_seed(0)
    for level in (0.01, 0.5, 20.0):
        y, noise = (torch.randn(n, 1, 1, 1, generator=drawn) for _ in range(2))
        y, sigma = 0.5 * y, torch.full((n,), level, dtype=torch.float64)
        skip = 0.25 / (level**2 + 0.25)
        assert denoising_loss(skip * (y + level * noise), y, sigma, 0.5).mean().item() == pytest.approx(1, abs=0.03)


def test_the_curve_has_ten_equally_likely_ranges():
    normal = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    valid = torch.arange(50_000) % 2 == 0
    curve = loss_by_noise(normal, normal, valid)
    assert curve.count.sum() == 25_000
    torch.testing.assert_close(curve.count / 25_000, torch.full((10,), 0.1), rtol=0, atol=0.01)
    means = curve.total / curve.count
    assert bool((means.diff() > 0).all())
    assert means[0] < -1.5


def test_the_bins_that_are_told_hold_the_levels_of_their_range():
    told = method_of(noise_mean=-0.4, noise_std=1.8).curves()["loss_by_noise"]
    normal = torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = noise_levels(normal, -0.4, 1.8)
    edges = torch.tensor(told.edges, dtype=torch.float64)
    bins = torch.bucketize(levels, edges[1:-1]).double()
    curve = loss_by_noise(bins, normal, torch.ones(50_000).bool())
    torch.testing.assert_close(curve.total / curve.count, torch.arange(10.0, dtype=torch.float64))
    beyond = [(levels < edges[0]).double().mean().item(), (levels > edges[-1]).double().mean().item()]
    assert beyond == pytest.approx([0.01, 0.01], abs=0.002)
    assert told.log


@pytest.mark.parametrize("network", [{}, {"dropout": 0.3}, {"name": "dhariwal", "width": 32}])
def test_shares_and_padding_give_the_whole(network):
    """Losses and gradients of parts add up to those of the batch, and padding weighs nothing."""
    if network.get("name") == "dhariwal":
        network = {**network, "dropout": 0.1}
    method = method_of(network=network, label_dropout=0.4, augmentation={"probability": 0.5})
    nets = nets_of(method)

    def found(*batches):
        values = [loss_of(method, nets, batch).value for batch in batches]
        return sum(values).detach(), torch.autograd.grad(sum(values), list(nets["net"].parameters()))

    whole = found(batch_of())
    padded = batch_of(4, 2)
    padded["valid"] = padded["sample_id"] < 5
    parts = found(batch_of(2), padded, batch_of(1, 5))
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=0)
    for part, all_of_it in zip(parts[1], whole[1], strict=True):
        torch.testing.assert_close(part, all_of_it, rtol=1e-3, atol=1e-4 * all_of_it.abs().max().item())


def test_every_weight_has_a_gradient():
    for settings in ({}, {"augmentation": {"labels": True}}, {"label_dropout": 0.99}):
        method = method_of(**settings)
        nets = nets_of(method)
        gradients = torch.autograd.grad(loss_of(method, nets, batch_of()).value, list(nets["net"].parameters()))
        assert len(gradients) == len(list(nets["net"].parameters()))


def test_held_out_images_are_as_they_are():
    augmented, plain = method_of(augmentation={"probability": 1.0}), method_of(augmentation={"labels": True})
    nets = nets_of(plain)
    with torch.no_grad():
        torch.testing.assert_close(
            loss_of(augmented, nets, batch_of()).value, loss_of(plain, nets, batch_of()).value, rtol=0, atol=0
        )
    assert loss_of(augmented, nets, batch_of()).value != loss_of(plain, nets, batch_of()).value


def test_classes():
    assert method_of().size.classes == 3
    assert method_of(classes=0).size.classes == 0
    assert method_of(DataFacts(sample_shape=SHAPE)).size.classes == 0
    assert method_of(DataFacts(sample_shape=SHAPE), classes=7).size.classes == 7
    with pytest.raises(ConfigError, match="classes=4"):
        method_of(classes=4)
    unconditional = method_of(classes=0)
    assert loss_of(unconditional, nets_of(unconditional), batch_of()).value > 0
    unlabelled = {name: value for name, value in batch_of().items() if name != "label"}
    with pytest.raises(ConfigError, match="without labels"):
        loss_of(method_of(), nets_of(method_of()), unlabelled)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 4), None])
def test_samples_that_are_no_square_images(shape):
    with pytest.raises(ConfigError, match="samples of shape"):
        method_of(DataFacts(sample_shape=shape))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ema": [1.0]}, "decay"),
        ({"ema_power": [0.1, 0.1]}, "widths"),
        ({"ema_power": [0.4]}, "widths"),
        ({"sampling": {"guidance": 2.0}}, "label_dropout"),
        ({"augmentation": {"probability": 0.1, "labels": False}}, "augmentation"),
        ({"sampling": {"sigma_min": 3.0, "sigma_max": 2.0}}, "sigma_min"),
    ],
)
def test_settings_that_do_not_go_together(settings, told):
    with pytest.raises(ValidationError, match=told):
        EdmConfig.model_validate(settings)


def test_averages():
    spec = method_of(ema=[0.99, 0.9], ema_power=[0.05]).networks()["net"]
    assert spec.ema == (0.99, 0.9, PowerProfile(0.05))


def test_the_told_operations():
    """Half of the backward pass of the first convolution, whose input needs no gradient, is counted though not done."""
    method = method_of(network={"name": "dhariwal", "width": 32, "multipliers": [1, 2], "blocks": 2})
    batch = batch_of()
    counted = FakeRun(method).flops(batch)
    assert counted == pytest.approx(method.flops(batch), rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_is_known_without_a_run(checkpointing):
    method = method_of(network={"dropout": 0.1, "attention": [8]}, augmentation={"probability": 0.5})
    (peak,) = FakeRun(method, checkpointing=checkpointing).activation_bytes(batch_of()).values()
    assert peak > batch_of()["sample"].nbytes


# ---------------------------------------------------------------------- samples


def sampler_of(**settings):
    method = method_of(label_dropout=0.1, sampling={"steps": 4, **settings})
    nets = nets_of(method)
    nets["net"].eval()
    return method.sampler(nets)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "euler", "churn": 2.0},
        {"sampler": "heun", "churn": 2.0, "churn_min": 0.01, "churn_max": 40.0, "churn_noise": 1.01},
        {"sampler": "ddim", "eta": 1.0},
        {"sampler": "dpm_solver_2s"},
        {"sampler": "dpm_solver_2m", "guidance": 2.0},
    ],
    ids=str,
)
def test_samples_do_not_depend_on_their_batch(settings):
    sampler, streams, ids = sampler_of(**settings), Streams(0).within("samples"), torch.arange(5)
    together = sampler({"sample_id": ids}, streams)
    assert together.shape == (5, *SHAPE)
    assert together.dtype == torch.float32
    alone = torch.cat([sampler({"sample_id": ids[i : i + 1]}, streams) for i in (3, 1)])
    torch.testing.assert_close(alone, together[[3, 1]], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1])
    assert not torch.allclose(sampler({"sample_id": ids}, Streams(1)), together)


def test_classes_are_drawn_or_given():
    sampler, ids = sampler_of(), torch.arange(4)
    streams = Streams(0)
    drawn = streams.integers("label", ids, 3)
    free = sampler({"sample_id": ids}, streams)
    torch.testing.assert_close(sampler({"sample_id": ids, "label": drawn}, streams), free, rtol=0, atol=0)
    assert not torch.allclose(sampler({"sample_id": ids, "label": (drawn + 1) % 3}, streams), free)


def test_guidance_goes_from_no_class_to_the_class_and_on():
    """One step from sigma_max to 0 is the denoiser itself, in which guidance is linear."""
    ids = {"sample_id": torch.arange(3)}
    found = [sampler_of(steps=1, guidance=w)(ids, Streams(0)) for w in (0.0, 1.0, 3.0)]
    torch.testing.assert_close(found[0] + 3 * (found[1] - found[0]), found[2], rtol=1e-4, atol=1e-5)
    nothing = sampler_of(steps=1)
    without = dataclasses.replace(nothing, size=dataclasses.replace(nothing.size, classes=0))
    torch.testing.assert_close(without(ids, Streams(0)), found[0], rtol=1e-4, atol=1e-5)


def test_network_calls():
    calls = []

    class Counted(torch.nn.Linear):
        def forward(self, x, sigma, labels):
            calls.append(len(x))
            return torch.zeros_like(x)

    method = method_of()
    for sampler, wanted in (("heun", 35), ("dpm_solver_2m", 18)):
        calls.clear()
        EdmSampler(Counted(1, 1), EdmSamplingConfig(sampler=sampler), method.size)(
            {"sample_id": torch.arange(2)}, Streams(0)
        )
        assert calls == [2] * wanted


# ---------------------------------------------------------------------- configurations


@pytest.mark.parametrize("name", ["quickstart", "digits", "cifar10", "imagenet64"])
def test_configurations(name):
    """They are valid, and build networks for their data."""
    config = load(f"edm/{name}", [], schema_for)
    shapes = {"cifar10": ((3, 32, 32), 10), "imagenet64": ((3, 64, 64), 1000)}
    shape, classes = shapes.get(name, ((1, 8, 8), 10))
    method = METHODS["edm"].build(config.method, DataFacts(sample_shape=shape, classes=classes))
    with torch.device("meta"):
        net = method.networks()["net"].build()
    assert net.size.classes == classes
