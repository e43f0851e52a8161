"""KL autoencoders: the loss in closed form, what it does not depend on, names and settings of diffusers, latents."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from generative.errors import CheckpointError, ConfigError
from generative.method import Context, DataFacts
from generative.methods.kl_vae.config import KlVaeConfig
from generative.methods.kl_vae.convert import from_folder, to_folder
from generative.methods.kl_vae.method import NET, KlVae, build_network
from generative.nets.kl_autoencoder import KlAutoencoder, decoded, divergence, encoded, scaling_factor
from generative.nets.kl_autoencoder_config import KlAutoencoderConfig, from_diffusers
from generative.randomness import Streams
from generative.training.activations import FakeRun

pytest.importorskip("diffusers")
SIZES = {"channels": [8, 16], "layers": 1, "latent": 2, "groups": 4}
FACTS = DataFacts(sample_shape=(1, 8, 8))


def method_of(**changes: Any) -> KlVae:
    return KlVae(KlVaeConfig.model_validate({"network": SIZES, "ema": [0.9], "kl_weight": 0.1} | changes), FACTS)


def batch_of(count: int = 6, first: int = 0) -> dict[str, Tensor]:
    ids = torch.arange(first, first + count)
    sample = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))[ids] * 2 - 1
    return {"sample": sample, "sample_id": ids, "position": ids, "valid": torch.ones(count).bool()}


def context_of() -> Context:
    return Context(5, Streams(0, 5).within("reconstruct"), 6)


def loss_of(method: KlVae, net: Any, batch: dict[str, Tensor]) -> Any:
    return method.loss(method.updates()[0], {NET: net}, batch, context_of())


@pytest.fixture(scope="module")
def net() -> KlAutoencoder:
    torch.manual_seed(0)
    return build_network(method_of().config, FACTS).eval()


@pytest.mark.parametrize(("kind", "error"), [("absolute", 0.5), ("squared", 0.25)])
def test_the_loss_in_closed_form(kind, error) -> None:
    """Pixels are off by 1/2; KL(N(1, 4) || N(0, 1)) = (1 + 4 - 1 - ln 4) / 2 for each of 32 latents."""
    method, seen = method_of(reconstruction=kind), {}

    def net(x, noise):
        seen["noise"] = noise
        mean = torch.ones(len(x), 2, 4, 4)
        return x + 0.5, mean, mean * math.log(4)

    found = loss_of(method, net, batch_of())
    kl = (4 - math.log(4)) / 2
    assert found.value.item() == pytest.approx(6 * (error + 0.1 * 32 * kl / 64), rel=1e-5)
    assert torch.equal(seen["noise"], context_of().streams.normal("posterior", torch.arange(6), (2, 4, 4)))
    metrics = {name: (mean.total / mean.count).item() for name, mean in found.metrics.items()}
    assert metrics == pytest.approx({"squared_error": 0.25, "kl_by_latent": kl}, rel=1e-5)


def test_divergence_agrees_with_torch() -> None:
    mean, logvar = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    wanted = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(divergence(mean, logvar), wanted, rtol=1e-10, atol=0)


def test_the_loss_does_not_depend_on_the_batch_and_padding_weighs_nothing(net) -> None:
    method = method_of()
    whole = loss_of(method, net, batch_of(6)).value
    parts = [loss_of(method, net, batch_of(3, first)).value for first in (0, 3)]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-5, atol=0)
    batch = batch_of(6)
    batch["valid"][4:] = False
    batch["sample"][5] = torch.nan
    torch.testing.assert_close(
        loss_of(method, net, batch).value, loss_of(method, net, batch_of(4)).value, rtol=1e-5, atol=0
    )


def test_every_parameter_has_a_gradient() -> None:
    method = method_of()
    made = method.networks()[NET].build()
    loss_of(method, made, batch_of()).value.backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_names_settings_and_outputs_are_those_of_diffusers(net) -> None:
    from diffusers import AutoencoderKL

    told = to_folder(method_of().config, FACTS.sample_shape or (), 0.7)
    theirs = AutoencoderKL.from_config(told).eval()
    theirs.load_state_dict(net.state_dict())
    x = batch_of(3)["sample"]
    with torch.no_grad():
        posterior = theirs.encode(x).latent_dist
        mean, logvar = net(x, door="encode")
        torch.testing.assert_close(mean, posterior.mean)
        torch.testing.assert_close(logvar, posterior.logvar)
        torch.testing.assert_close(net(mean, door="decode"), theirs.decode(mean).sample)
        made, *_ = net(x, torch.ones_like(mean))
        torch.testing.assert_close(made, theirs.decode(posterior.mean + posterior.std).sample)
        # scaled latents, there and back
        torch.testing.assert_close(encoded(net, x, 3.0), 3 * mean)
        torch.testing.assert_close(decoded(net, 3 * mean, 3.0), net(mean, door="decode"))


def test_there_and_back(net) -> None:
    config = method_of().config
    found = from_folder(to_folder(config, (1, 8, 8), 0.7), net.state_dict())
    assert (found.config.network, found.config.scaling_factor) == (config.network, 0.7)
    assert found.facts == FACTS
    torch.testing.assert_close(dict(found.state), dict(net.state_dict()), rtol=0, atol=0)
    # older files have other names in attention, and pointwise convolutions in the place of matrices
    old = {"to_q": "query", "to_k": "key", "to_v": "value"}
    state = {}
    for name, value in net.state_dict().items():
        parts = name.replace("to_out.0", "proj_attn").split(".")
        parts[-2] = old.get(parts[-2], parts[-2])
        matrix = "attentions" in parts and value.dim() == 2
        state[".".join(parts)] = value[:, :, None, None] if matrix else value
    torch.testing.assert_close(dict(from_folder(to_folder(config, (1, 8, 8), 0.7), state).state), net.state_dict())


def test_stable_diffusion_s_settings_are_the_default() -> None:
    told = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    assert from_diffusers(told) == (KlAutoencoderConfig(), (3, 512, 512), 0.18215)
    assert KlAutoencoderConfig().latent_shape((3, 512, 512)) == (4, 64, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "VQModel"}, "class VQModel"),
        ({"shift_factor": 0.1}, "shift_factor"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "AttnDownEncoderBlock2D"),
        ({"out_channels": 6}, "6 out"),
        ({"norm_num_groups": 5}, "cannot be"),
    ],
)
def test_other_autoencoders_are_refused(change, said) -> None:
    with pytest.raises(CheckpointError, match=said):
        from_diffusers(to_folder(method_of().config, (1, 8, 8), 1.0) | change)


def test_scaled_latents_have_unit_variance() -> None:
    """In closed form, over batches of unequal sizes; against drawn latents."""
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(40, 2, 4, 4, generator=generator) + 1
    logvars = torch.randn(40, 2, 4, 4, generator=generator)

    def net(index, door):
        assert door == "encode"
        return means[index], logvars[index]

    scale = scaling_factor(net, torch.arange(40).split([25, 15]))
    noise = torch.randn(400, 40, 2, 4, 4, generator=generator)
    drawn = means + (logvars / 2).exp() * noise
    assert scale * drawn.std().item() == pytest.approx(1, abs=2e-3)


def test_samples_and_plans(net) -> None:
    method = method_of()
    sampler, batch = method.sampler({NET: net}), batch_of(4)
    whole = sampler({"sample_id": batch["sample_id"], "sample": batch["sample"]}, Streams(0))
    assert whole.shape == (4, 1, 8, 8)
    # through the most probable latents, whatever the noise, and each image by itself
    with torch.no_grad():
        mean, _ = net(batch["sample"], door="encode")
        torch.testing.assert_close(whole, net(mean, door="decode"), rtol=0, atol=1e-5)
    alone = sampler({"sample_id": torch.tensor([9]), "sample": batch["sample"][2:3]}, Streams(1))
    torch.testing.assert_close(whole[2:3], alone, rtol=0, atol=1e-5)
    assert method.flops(batch_of(4)) == 4 * method.flops(batch_of(1)) > 0
    run = FakeRun(method)
    assert 0 < run.activation_bytes(batch_of(2))["reconstruct"] < run.activation_bytes(batch_of(8))["reconstruct"]


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 2"):
        KlVae(method_of().config, DataFacts(sample_shape=(1, 7, 7)))
    with pytest.raises(ConfigError, match="samples of shape"):
        KlVae(method_of().config, DataFacts(sample_shape=(2,)))
    for wrong in ({"network": {"channels": [9], "groups": 4}}, {"network": {"channels": []}}, {"ema": [1.0]}):
        with pytest.raises(ValidationError):
            KlVaeConfig.model_validate(wrong)
