"""Released checkpoints in and out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from generative.errors import CheckpointError
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.mee_gan.convert import from_released, to_released
from generative.methods.mee_gan.network import build_discriminator, build_generator

GOLDEN = Path(__file__).parents[3] / "golden" / "mee_gan"


def golden(name):
    """The published generator and discriminator."""
    arrays = load_file(GOLDEN / f"{name}.safetensors")
    return tuple({k[3:]: v for k, v in arrays.items() if k.startswith(prefix)} for prefix in ("G0.", "D0."))


class Judge(nn.Module):
    """A discriminator as the released code builds it, with either form of torch's spectral norm."""

    def __init__(self, norm, code=5):
        super().__init__()
        sizes = [3, 4, 8, 16]
        layers = []
        for inputs, outputs in pairwise(sizes):
            layers += [norm(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)), nn.LeakyReLU(0.2, inplace=True)]
        self.model = nn.Sequential(*layers)
        self.fc = norm(nn.Linear(256, code, bias=False))
        self.reparam = norm(nn.Linear(256, 2 * code, bias=False))

    def forward(self, x):
        features = self.model(x).flatten(1)
        self.fc(features)
        return self.reparam(features).chunk(2, 1)[0]


@pytest.mark.parametrize(
    ("name", "shape", "latent", "code"), [("nets_32", (3, 32, 32), 8, 5), ("nets_16_gray", (1, 16, 16), 5, 3)]
)
def test_sizes_follow_from_the_tensors_and_all_comes_back(name, shape, latent, code):
    generator, discriminator = golden(name)
    found = from_released(discriminator, generator)
    assert found.shape == shape
    assert (found.config.latent, found.config.code) == (latent, code)
    assert (found.config.network.width, found.config.network.discriminator_width) == (4, 4)
    assert (found.config.reparameterised, found.config.unused_head, found.config.spectral_norm) == (True, True, True)
    for build, part, theirs in (
        (build_generator, "generator", generator),
        (build_discriminator, "discriminator", discriminator),
    ):
        net = build(found.config, found.shape)
        net.load_state_dict(found.networks[part])
        torch.testing.assert_close(to_released(net.state_dict()), theirs, rtol=0, atol=0)


def test_newer_spectral_norms_and_parallel_prefixes():
    torch.manual_seed(0)
    theirs = Judge(parametrizations.spectral_norm).eval()
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    found = from_released(state)
    net = build_discriminator(found.config, found.shape).eval()
    net.load_state_dict(found.networks["discriminator"])
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), theirs(x))


@pytest.mark.parametrize("unused", [True, False])
def test_released_code_loads_what_goes_out(unused):
    """A head that is missing is filled in, and changes nothing."""
    config = MeeGanConfig(network={"name": "dcgan", "width": 4}, code=5, unused_head=unused)
    net, theirs = build_discriminator(config, (3, 32, 32)), Judge(spectral_norm)
    theirs.load_state_dict(to_released(net.state_dict()))
    x = torch.randn(2, 3, 32, 32)
    for training in (True, True, False):
        torch.testing.assert_close(theirs.train(training)(x), net.train(training)(x))
        assert all(tensor.isfinite().all() for tensor in theirs.state_dict().values())


def test_plain_discriminators():
    config = MeeGanConfig(network={"name": "dcgan", "width": 4}, spectral_norm=False, reparameterised=False, code=6)
    found = from_released(build_discriminator(config, (1, 8, 8)).state_dict())
    assert found.shape == (1, 8, 8)
    assert (found.config.code, found.config.reparameterised, found.config.spectral_norm) == (6, False, False)


def test_what_does_not_fit_is_told():
    generator, _ = golden("nets_32")
    with pytest.raises(CheckpointError, match=r"samples of \[1, 16, 16\] and \[3, 32, 32\]"):
        from_released(generator, golden("nets_16_gray")[1])
    with pytest.raises(CheckpointError, match="two files of a generator"):
        from_released(generator, generator)
    with pytest.raises(CheckpointError, match="neither"):
        from_released({"conv.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="no convolutions"):
        from_released({"fc.weight": torch.ones(2, 2)})
    with pytest.raises(CheckpointError) as error:
        to_released(build_generator(MeeGanConfig(network={"name": "mlp"}), (1, 8, 8)).state_dict())
    assert "--layout generative" in error.value.remedy


def test_discriminators_that_the_released_code_cannot_load_are_refused():
    for settings in ({"spectral_norm": False}, {"reparameterised": False}):
        config = MeeGanConfig.model_validate({"network": {"name": "dcgan", "width": 4}, **settings})
        state = build_discriminator(config, (3, 32, 32)).state_dict()
        with pytest.raises(CheckpointError, match="generative"):
            to_released(state)
