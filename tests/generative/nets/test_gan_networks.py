"""Networks of GANs with codes: shapes, counts of operations, second derivatives, recomputation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.nets.batch_norm import BatchNorm
from generative.nets.dcgan import DcganDiscriminator, DcganGenerator
from generative.nets.mlp_gan import MlpDiscriminator, MlpGenerator
from generative.nets.resnet_gan import ResnetDiscriminator, ResnetGenerator, discriminator_blocks, generator_channels

GENERATORS = {
    "dcgan": lambda shape=(3, 16, 16): DcganGenerator(6, shape, 4),
    "resnet": lambda shape=(3, 16, 16): ResnetGenerator(6, shape, 4),
    "mlp": lambda shape=(3, 16, 16): MlpGenerator(6, shape, (7, 5)),
}
DISCRIMINATORS = {
    "dcgan": lambda shape=(3, 16, 16), **o: DcganDiscriminator(shape, 4, 5, **o),
    "resnet": lambda shape=(3, 16, 16), **o: ResnetDiscriminator(shape, 5, 4, **o),
    "mlp": lambda shape=(3, 16, 16), **o: MlpDiscriminator(shape, (7, 6), 5, **o),
    "maxout": lambda shape=(3, 16, 16), **o: MlpDiscriminator(shape, (7, 6), 5, maxout=3, **o),
}
SHAPES = [(1, 8, 8), (3, 16, 16), (2, 32, 32), (3, 64, 64), (1, 128, 128)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(build):
    torch.manual_seed(1)
    return build()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_make_samples_with_the_told_operations(name, shape):
    net = GENERATORS[name](shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert net(torch.ones(4, 6)).shape == (4, *shape)
    assert counter.get_total_flops() == 4 * 2 * net.multiply_adds()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"reparameterised": False, "spectral": False}, {"unused_head": True}], ids=str)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_give_codes_with_the_told_operations(name, options, shape):
    net = DISCRIMINATORS[name](shape, **options)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert net(torch.ones(4, *shape)).shape == (4, 5)
    assert counter.get_total_flops() == 4 * 2 * net.multiply_adds()
    assert any("weight_orig" in key for key in net.state_dict()) == options.get("spectral", True)


def test_residual_networks_as_published():
    assert generator_channels(32, None) == [256, 256, 256, 256]
    assert generator_channels(64, None) == [1024, 512, 256, 128, 64]
    assert generator_channels(128, 32) == [512, 512, 256, 128, 64, 32]
    assert discriminator_blocks(32, None) == [(128, True), (128, True), (128, False), (128, False)]
    assert [width for width, _ in discriminator_blocks(64, None)] == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("shape", [(3, 24, 24), (3, 4, 4), (3, 16, 32), (16, 16), (2,), (0, 8, 8)])
@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_other_shapes_are_refused(name, shape):
    for build in (GENERATORS[name], DISCRIMINATORS[name]):
        with pytest.raises(ConfigError) as error:
            build(shape)
        assert str(list(shape)) in error.value.problem
        assert "mlp" in error.value.remedy


def test_points_in_the_plane():
    net = seeded(lambda: MlpGenerator(2, (2,), (400,) * 4, bounded=False, init_std=0.02))
    assert net(normal(8, 2)).shape == (8, 2)
    judge = MlpDiscriminator((2,), (200,) * 3, 1, maxout=5, init_std=0.02, spectral=False, reparameterised=False)
    assert judge(normal(8, 2)).shape == (8, 1)
    assert float(judge.layers[1].weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not judge.layers[1].bias.any()


def test_maxout_takes_the_largest_of_its_pieces():
    net = seeded(lambda: MlpDiscriminator((4,), (3,), 2, maxout=2, spectral=False, reparameterised=False))
    x = normal(5, 4)
    pieces = F.linear(x, net.layers[0].weight, net.layers[0].bias)
    hidden = torch.maximum(pieces[:, 0::2], pieces[:, 1::2])
    torch.testing.assert_close(net(x), F.linear(hidden, net.fc.weight, net.fc.bias))


# ---------------------------------------------------------------------- codes


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_code_is_drawn_around_mu(name):
    net = seeded(lambda: DISCRIMINATORS[name]()).eval()
    x, noise = normal(3, 3, 16, 16), normal(3, 5, seed=2)
    mu, logvar = net.reparam(net.features(x, False)).chunk(2, 1)
    torch.testing.assert_close(net(x), mu)
    torch.testing.assert_close(net(x, noise), mu + torch.exp(logvar / 2) * noise)
    plain = DISCRIMINATORS[name](reparameterised=False)
    with pytest.raises(ValueError, match="not reparameterised"):
        plain(x, noise)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_the_unused_head_iterates_but_is_not_trained(name):
    net = seeded(lambda: DISCRIMINATORS[name](unused_head=True))
    x, before = normal(3, 3, 16, 16), net.fc.weight_u.clone()
    net(x, iterate=False)
    assert torch.equal(net.fc.weight_u, before)
    net(x).sum().backward()
    assert not torch.equal(net.fc.weight_u, before)
    gradients = {key: parameter.grad is not None for key, parameter in net.named_parameters()}
    assert {key for key, there in gradients.items() if not there} == {
        key for key, parameter in net.named_parameters() if not parameter.requires_grad
    }
    assert not net.fc.weight_orig.requires_grad


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_codes_are_in_single_precision_under_autocast(name):
    net = seeded(lambda: DISCRIMINATORS[name]())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = net(normal(3, 3, 16, 16), normal(3, 5))
    assert code.dtype == torch.float32
    torch.testing.assert_close(code, net(normal(3, 3, 16, 16), normal(3, 5), iterate=False), rtol=0.05, atol=0.05)


# ---------------------------------------------------------------------- gradients


def penalty(net, x, noise):
    """R1 of the realness, iterating once (spec of the update: the forward that follows shares it)."""
    x = x.clone().requires_grad_(True)
    code = net(x, noise)
    (slope,) = torch.autograd.grad(code.mean(1).sum(), x, create_graph=True)
    return slope.square().sum() + net(x, noise, iterate=False).square().sum()


@pytest.mark.parametrize("options", [{}, {"spectral": False, "reparameterised": False}], ids=["spectral", "plain"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_of_gradients(name, options):
    """The derivative of R1 along a random direction in all weights, against central differences."""
    net = seeded(lambda: DISCRIMINATORS[name]((1, 8, 8), **options)).double()
    x = normal(3, 1, 8, 8).double()
    noise = normal(3, 5, seed=2).double() if net.reparam is not None else None
    for _ in range(3):
        net(x)
    net.eval()  # the power iteration would answer to the change of weights
    loss = penalty(net, x, noise)
    weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, weights)
    ways = [normal(*weight.shape, seed=7 + i).double() for i, weight in enumerate(weights)]
    told = sum(float((g * way).sum()) for g, way in zip(gradients, ways, strict=True))
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            torch._foreach_add_(weights, [step * way for way in ways])
        values.append(float(penalty(net, x, noise).detach()))
        with torch.no_grad():
            torch._foreach_add_(weights, [-step * way for way in ways])
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(told, rel=1e-5)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_recomputed_activations_change_nothing_in_discriminators(name):
    plain, again = (seeded(lambda: DISCRIMINATORS[name]((1, 8, 8))) for _ in range(2))
    again.activation_checkpointing = True
    for net in (plain, again):
        penalty(net, normal(3, 1, 8, 8), normal(3, 5, seed=2)).backward()
    _same(plain, again)


@pytest.mark.parametrize("name", GENERATORS)
def test_recomputed_activations_change_nothing_in_generators(name):
    plain, again = (seeded(GENERATORS[name]) for _ in range(2))
    again.activation_checkpointing = True
    for net in (plain, again):
        net(normal(5, 6)).pow(3).sum().backward()
    _same(plain, again)


def _same(plain, again):
    torch.testing.assert_close(dict(again.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    for (key, mine), other in zip(again.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", GENERATORS)
def test_padding_rows_weigh_nothing_and_evaluation_knows_no_batch(name):
    net, other = seeded(GENERATORS[name]), seeded(GENERATORS[name])
    z, valid = normal(6, 6), torch.tensor([True, True, False, True, True, False])
    torch.testing.assert_close(net(z, valid)[valid], other(z[valid]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(net.state_dict()), dict(other.state_dict()), rtol=1e-4, atol=1e-6)
    net.eval()
    torch.testing.assert_close(net(z)[2:4], net(z[2:4]))


# ---------------------------------------------------------------------- initial weights


def test_initial_weights_of_dcgan():
    net = seeded(lambda: DcganGenerator(64, (3, 32, 32), 32))
    judge = seeded(lambda: DcganDiscriminator((3, 32, 32), 32, 8))
    weights = [*net.model[0].parameters(), *net.model[3].parameters(), judge.model[2].weight_orig]
    for weight in weights:
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert abs(float(weight.detach().mean())) < 0.02 / math.sqrt(weight.numel()) * 4
    norms = [layer for layer in net.model if isinstance(layer, BatchNorm)]
    scales = torch.cat([layer.weight for layer in norms]).detach()
    assert float(scales.mean()) == pytest.approx(1, abs=0.01)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.3)
    assert not any(layer.bias.any() for layer in norms)
    head = judge.reparam.weight_orig
    torch.testing.assert_close(head @ head.T, torch.eye(16), rtol=1e-4, atol=1e-5)
