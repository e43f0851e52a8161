"""Pipelines of diffusers as priors: what they predict, autoencoders, gradients, and what cannot be opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from generative.errors import CheckpointError, ConfigError, DataError
from generative.hub.diffusion_priors import open_pipeline_prior
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.problem import Problem, StreamDraws
from generative.methods.stsl.sampler import GuidedSampling, Stsl
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams
from tests.support.pipelines import stable_diffusion, vae

pytest.importorskip("diffusers")
CPU = torch.device("cpu")


def small_unet(channels: int, out: int | None = None) -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(3)
    return UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=out or channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import DDPMPipeline, DDPMScheduler

    folder = tmp_path_factory.mktemp("ddpm") / "model"
    DDPMPipeline(small_unet(3), DDPMScheduler(prediction_type="v_prediction")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd") / "model"
    stable_diffusion().save_pretrained(folder)
    return folder


def test_pixels(ddpm) -> None:
    from diffusers import DDPMScheduler

    prior = open_pipeline_prior(ddpm, CPU)
    assert (prior.shape, prior.image, prior.latent) == ((3, 8, 8), (3, 8, 8), False)
    level = prior.levels(10)[3]
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    e = prior.noise(z, level)
    with torch.no_grad():
        v = small_unet(3)(z, torch.full((2,), level.time)).sample
    wanted = DDPMScheduler().alphas_cumprod[int(level.time)].double()
    torch.testing.assert_close(e, wanted.sqrt().float() * v + (1 - wanted).sqrt().float() * z, rtol=1e-4, atol=1e-5)
    assert prior.levels(10)[-1].noise == 0


def test_a_text_to_image_model_restores(text) -> None:
    """A latent prior with an empty prompt, through its autoencoder; every form of gradient reaches z."""
    prior = open_pipeline_prior(text, CPU)
    assert prior.latent
    assert prior.image == (3, 16, 16)
    other = open_pipeline_prior(text, CPU, "a golden tree")
    level = prior.levels(10)[3]
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(prior.noise(z, level), other.noise(z, level))
    net = vae()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        scale = net.config.scaling_factor
        torch.testing.assert_close(prior.encode(x), net.encode(x).latent_dist.mean * scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(prior.decode(z), net.decode(z / scale).sample, rtol=1e-4, atol=1e-5)
    operator = make_operator("superres:factor=4", prior.image)
    ids = torch.tensor([3, 9])
    y = operator(x)
    for name, settings in (
        ("stsl", Stsl(Terms(weight=0.1, eta=1.0), steps=2, inner=1)),
        ("stsl", Stsl(Terms(weight=0.1, eta=1.0, probe="measurement"), steps=2, inner=1)),
        ("stsl", Stsl(Terms(weight=0.1, eta=1.0, probe="jvp"), steps=2, inner=1)),
        ("mmps", GuidedSampling(steps=2, solver_steps=1)),
    ):
        found = METHODS[name].run(Problem(prior, operator, y, 0.05, StreamDraws(Streams(0), ids)), settings)
        assert found.image.shape == (2, 3, 16, 16)
        assert not found.failed.any()
        assert found.cost.decoder_vjps > 0


def test_variances_are_told_apart(ddpm, tmp_path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(small_unet(3, 6), DDPMScheduler(variance_type="learned_range")).save_pretrained(tmp_path / "adm")
    prior = open_pipeline_prior(tmp_path / "adm", CPU)
    z = torch.zeros(1, 3, 8, 8)
    assert prior.both is not None
    e, v = prior.both(z, prior.levels(5)[2])
    torch.testing.assert_close(prior.noise(z, prior.levels(5)[2]), e)
    assert v.shape == e.shape == z.shape
    assert open_pipeline_prior(ddpm, CPU).both is None


def test_gray_latents_have_gray_images(tmp_path) -> None:
    """The autoencoder tells how many channels images have."""
    from diffusers import AutoencoderKL, DDIMScheduler

    small = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 2}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    parts = {"vae": AutoencoderKL(in_channels=1, out_channels=1, **small, **blocks), "unet": small_unet(2)}
    for name, part in (parts | {"scheduler": DDIMScheduler()}).items():
        part.save_pretrained(tmp_path / name)
    told = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    index = {"_class_name": "LatentPipeline", **told, "scheduler": ["diffusers", "DDIMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    prior = open_pipeline_prior(tmp_path, CPU)
    assert (prior.shape, prior.image) == ((2, 8, 8), (1, 16, 16))
    assert prior.decode(torch.zeros(1, 2, 8, 8)).shape == (1, 1, 16, 16)


def test_what_cannot_be_opened(ddpm, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no model_index"):
        open_pipeline_prior(tmp_path, CPU)
    broken = tmp_path / "broken"
    shutil.copytree(ddpm, broken)
    for path in (broken / "unet").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_pipeline_prior(broken, CPU)
    index = json.loads((ddpm / "model_index.json").read_text())
    index["unet"][1] = "Transformer2DModel"
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="whose unet is Transformer2DModel"):
        open_pipeline_prior(broken, CPU)


@pytest.mark.parametrize("name", ["ScoreSdeVeScheduler", "CMStochasticIterativeScheduler", "EDMEulerScheduler"])
def test_schedules_without_betas_are_refused(ddpm, tmp_path, name) -> None:
    """DDPMScheduler reads their files without a word, as linear betas of its own."""
    import diffusers

    shutil.copytree(ddpm, tmp_path / "model")
    getattr(diffusers, name)().save_pretrained(tmp_path / "model" / "scheduler")
    with pytest.raises(ConfigError, match=f"{name}, which has no betas"):
        open_pipeline_prior(tmp_path / "model", CPU)


@pytest.mark.parametrize("side", [None, [8, 16]])
def test_sides_that_are_not_one_number_are_told(ddpm, tmp_path, side) -> None:
    shutil.copytree(ddpm, tmp_path / "model")
    config = tmp_path / "model" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": side}))
    with pytest.raises(CheckpointError, match="sample_size="):
        open_pipeline_prior(tmp_path / "model", CPU)


def test_odd_sides_are_told(text) -> None:
    prior = open_pipeline_prior(text, CPU)
    operator = make_operator("inpaint", (3, 17, 17))
    with pytest.raises(DataError, match="as the prior makes them"):
        Problem(prior, operator, torch.zeros(1, 3, 17, 17), 0.05, StreamDraws(Streams(0), torch.zeros(1).long()))
