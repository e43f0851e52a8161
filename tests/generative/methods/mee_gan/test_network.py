"""The networks of configurations, and numbers made by the released networks (tests/golden/mee_gan)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.network import build_discriminator, build_generator

GOLDEN = Path(__file__).parents[3] / "golden" / "mee_gan"


@pytest.fixture(scope="module", params=["nets_32", "nets_16_gray"])
def golden(request):
    """Arrays of a golden file, and the networks that it is of."""
    path = GOLDEN / f"{request.param}.safetensors"
    with safe_open(path, framework="pt") as file:
        sizes = {key: int(value) for key, value in file.metadata().items()}
    config = MeeGanConfig(
        latent=sizes["z_dim"],
        code=sizes["outcomes"],
        unused_head=True,
        network={"name": "dcgan", "width": sizes["G_h_size"], "discriminator_width": sizes["D_h_size"]},
    )
    shape = (sizes["channels"], sizes["image_size"], sizes["image_size"])
    return load_file(path), build_generator(config, shape), build_discriminator(config, shape)


def part(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


@torch.no_grad()
def test_generator_agrees_with_the_released_one(golden):
    arrays, net, _ = golden
    assert set(net.state_dict()) == set(part(arrays, "G0."))
    net.load_state_dict(part(arrays, "G0."))
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(net.train()(arrays["z"]), arrays["G_train_out"], **close)
    for name, value in part(arrays, "G1.").items():
        torch.testing.assert_close(net.state_dict()[name], value, **close)
    torch.testing.assert_close(net.eval()(arrays["z"]), arrays["G_eval_out"], **close)


@torch.no_grad()
def test_discriminator_agrees_with_the_released_one_call_by_call(golden):
    arrays, _, net = golden
    assert set(net.state_dict()) == set(part(arrays, "D0."))
    net.load_state_dict(part(arrays, "D0."))
    x, eps, close = arrays["x_real"], arrays["eps"], {"rtol": 1e-5, "atol": 2e-6}
    torch.testing.assert_close(net.train()(x, eps), arrays["D_train_out_eps"], **close)
    for name, value in part(arrays, "D1.").items():
        torch.testing.assert_close(net.state_dict()[name], value, **close)
    torch.testing.assert_close(net(x), arrays["D_train_out_eps0_second_call"], **close)
    torch.testing.assert_close(net.eval()(x), arrays["D_eval_out_eps0"], **close)
    torch.testing.assert_close(net(x, eps), arrays["D_eval_out_eps"], **close)
    torch.testing.assert_close(net.fc(net.features(x, True)), arrays["D_eval_fc_out"], **close)


@pytest.mark.parametrize("network", [{"name": "dcgan", "width": 4}, {"name": "resnet", "width": 4}, {"name": "mlp"}])
@pytest.mark.parametrize("preset", ["default", "released", "plugin"])
def test_configurations_build_pairs_that_fit(network, preset):
    config = MeeGanConfig(network=network, preset=preset, latent=7, code=3)
    net, judge = build_generator(config, (1, 16, 16)), build_discriminator(config, (1, 16, 16))
    noise = torch.zeros(2, 3) if config.reparameterised else None
    assert judge(net(torch.ones(2, 7)), noise).shape == (2, 3)
    assert any("weight_orig" in name for name in judge.state_dict()) == config.spectral_norm
    assert any(name.startswith("fc.") for name in judge.state_dict()) == (config.unused_head or preset == "plugin")


def test_widths_of_the_configuration():
    config = MeeGanConfig(network={"name": "dcgan", "width": 8, "discriminator_width": 6})
    assert build_generator(config, (3, 32, 32)).model[9].weight.shape == (8, 3, 4, 4)
    assert build_discriminator(config, (3, 32, 32)).model[0].raw.shape == (6, 3, 4, 4)
    toy = MeeGanConfig(network={"name": "mlp", "discriminator": [200] * 3, "maxout": 5, "bounded": False})
    assert build_discriminator(toy, (2,)).layers[1].raw.shape == (1000, 200)
    assert not build_generator(toy, (2,)).bounded
