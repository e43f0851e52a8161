"""Stable Diffusion as a teacher: a tiny model in diffusers' layout, made here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generative.data.loader import Loader
from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.latent_denoiser import LatentDenoiser, Schedule
from generative.methods.f_distill.method import FDistill
from generative.methods.f_distill.stable_diffusion import StableDiffusionConfig, stable_diffusion_parts
from generative.randomness import Streams
from generative.training.backend import Backend
from generative.training.config import TrainConfig
from generative.training.trainer import Trainer
from tests.generative.methods.f_distill.cases import loss_of
from tests.generative.methods.f_distill.golden import GOLDEN

TOKENS, WIDTH = 5, 12
EMPTY = torch.linspace(-1, 1, TOKENS * WIDTH).view(TOKENS, WIDTH)


def diffusers() -> Any:
    return pytest.importorskip("diffusers")


def save(folder: Path, prediction: str = "epsilon", safe: bool = True, **schedule: Any) -> Path:
    found = diffusers()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = found.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        )
    unet.save_pretrained(folder / "unet", safe_serialization=safe)
    told = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    found.DDIMScheduler(prediction_type=prediction, **told, **schedule).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request: Any, tmp_path_factory: Any) -> Path:
    return save(tmp_path_factory.mktemp(request.param), request.param)


def parts_of(folder: Path) -> Any:
    return stable_diffusion_parts(StableDiffusionConfig(source=str(folder)), EMPTY)


def method_of(folder: Path, **settings: Any) -> FDistill:
    parts = parts_of(folder)
    small = {"critic_updates": 1, "ratio": {"bins": 2}, "gan_weight": 0.1, "student_sigma": parts.noise_levels[-1]}
    return FDistill(FDistillConfig.model_validate(small | {"guidance": 1.75} | settings), parts)


def batch_of(count: int) -> dict[str, Tensor]:
    ids, g = torch.arange(count), torch.Generator().manual_seed(1)
    text = torch.randn(count, TOKENS, WIDTH, generator=g)
    sample = torch.randn(count, 4, 8, 8, generator=g)
    return {"sample": sample, "text": text, "sample_id": ids, "position": ids, "valid": ids >= 0}


def test_levels_are_those_of_the_golden_schedule() -> None:
    with np.load(GOLDEN / "edm_schedule.npz") as golden:
        squares, at = torch.tensor(golden["sd_alphas_cumprod"]), torch.tensor(golden["sd_t"])
        wanted = torch.tensor(golden["sd_sigma"] / golden["sd_alpha"])
    schedule = Schedule(squares, velocity=False)
    index = (1000 * at).long()
    torch.testing.assert_close(schedule.levels[index], wanted, rtol=1e-6, atol=0)
    assert torch.equal(schedule.steps(wanted), index)
    assert torch.equal(schedule.steps(wanted.float()), index)
    assert float(schedule.levels[-1]) == pytest.approx(14.6146, rel=1e-4)


def test_it_says_what_the_scheduler_makes_of_the_networks_answer(folder: Path) -> None:
    """x0 by diffusers itself, from x_t at each step, with the whole forward of its U-Net."""
    scheduler = diffusers().DDIMScheduler.from_pretrained(folder / "scheduler")
    parts = parts_of(folder)
    net, batch = parts.pretrained(), batch_of(3)
    unet = diffusers().UNet2DConditionModel.from_pretrained(folder / "unet")
    scheduler.set_timesteps(1000)
    for step in (0, 20, 500, 999):
        noise = torch.randn(3, 4, 8, 8)
        x_t = scheduler.add_noise(batch["sample"], noise, torch.tensor(step))
        alpha = float(scheduler.alphas_cumprod[step]) ** 0.5
        level = torch.full((3,), parts.noise_levels[step], dtype=torch.float64)
        with torch.no_grad():
            wanted = scheduler.step(unet(x_t, step, batch["text"]).sample, step, x_t).pred_original_sample
            found = net(x_t / alpha, level, batch["text"])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_features_and_what_keeps_a_gradient(folder: Path) -> None:
    parts = parts_of(folder)
    net, batch = parts.pretrained(), batch_of(2)
    x, sigma = batch["sample"].clone().requires_grad_(), torch.tensor([0.5, 3.0], dtype=torch.float64)
    levels = list(range(len(parts.maps)))
    seen: dict[int, Tensor] = {}
    for i, block in enumerate([*net.unet.down_blocks, net.unet.mid_block]):
        block.register_forward_hook(
            lambda module, inputs, output, i=i: seen.update({i: output[0] if isinstance(output, tuple) else output})
        )
    estimate, features = net(x, sigma, batch["text"], features=levels, decoder_gradient=False)
    assert [(each.shape[1], each.shape[2]) for each in features] == [(m.channels, m.side) for m in parts.maps]
    assert all(torch.equal(features[i], seen[i]) for i in levels)
    assert not estimate.requires_grad
    assert all(feature.requires_grad for feature in features)
    alone = net(x, sigma, batch["text"], features=levels, encoder_only=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, features, strict=True))
    torch.testing.assert_close(estimate, net(x, sigma, batch["text"]).detach())
    assert 0 < parts.encoder_multiply_adds < parts.multiply_adds


def test_the_arithmetic_is_wide() -> None:
    """The estimate of a bf16 network at the last step is that of its answer, to the digits of fp32."""
    folder_parts = Schedule(torch.linspace(0.999, 0.0047, 1000, dtype=torch.float64), velocity=False)

    class Answer(nn.Module):
        config: dict[str, Any] = {}

    net = LatentDenoiser(Answer(), folder_parts)
    net.unet.dtype = torch.bfloat16
    net.unet.time_proj = net.unet.time_embedding = lambda x: x
    eps = torch.randn(2, 4, 8, 8).bfloat16()
    net._encode = lambda *_: ([], [eps])  # type: ignore[method-assign,assignment]
    net._decode = lambda *_: eps  # type: ignore[method-assign,assignment]
    x, level = torch.randn(2, 4, 8, 8), folder_parts.levels[-1]
    found = net(x, level.expand(2), torch.zeros(2, 1, 1))
    torch.testing.assert_close(found.double(), x.double() - level * eps.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"backbone": "fake"}, {"lora": {"rank": 2}}, {"steps": {"levels": [0.8]}}])
def test_the_trainer_distils_it(folder: Path, settings: dict[str, Any]) -> None:
    method = method_of(folder, **settings)
    config = TrainConfig.model_validate(
        {"steps": 1, "batch_size": 4, "checkpoint": {"every_steps": None}, "optimizer": {"lr": 1e-3}}
    )

    class Latents:
        def __len__(self) -> int:
            return 8

        def fetch(self, indices: np.ndarray) -> dict[str, Tensor]:
            every = batch_of(8)
            return {key: every[key][torch.as_tensor(indices)] for key in ("sample", "text")}

    trainer = Trainer(
        method, config, 1, lambda state: Loader(Latents(), batch_size=4, seed=0, state=state), Backend(threads=1)
    )
    start = {name: p.clone() for name, p in trainer.engines["teacher"].module.state_dict().items()}
    student = trainer.engines["student"].module
    assert all(torch.equal(p, start[name]) for name, p in student.state_dict().items())
    stored = diffusers().UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    assert all(torch.equal(p, start[f"unet.{name}"]) for name, p in stored.items())
    trainer.train()
    assert any(not torch.equal(p, start[name]) for name, p in student.state_dict().items())
    drawn = method.sampler({"student": student})(
        {"sample_id": torch.arange(2), "text": EMPTY.repeat(2, 1, 1)}, Streams(0)
    )
    assert drawn.shape == (2, 4, 8, 8)
    assert drawn.isfinite().all()


def test_guidance_is_against_the_empty_prompt(folder: Path) -> None:
    method = method_of(folder, guidance=3.0)
    teacher, batch = method.parts.pretrained(), batch_of(2)
    t = torch.tensor([method.parts.noise_levels[i] for i in (100, 900)], dtype=torch.float64)
    with torch.no_grad():
        told, empty = (teacher(batch["sample"], t, text) for text in (batch["text"], EMPTY.expand(2, -1, -1)))
        found = method.views.guided(teacher, batch["sample"], t, batch["text"])
    torch.testing.assert_close(found, empty + 3.0 * (told - empty), rtol=1e-4, atol=1e-4)


def test_times_are_the_schedules(folder: Path) -> None:
    method = method_of(folder, time={"first": 20, "last": 980, "critic_first": 0, "critic_last": 999})
    assert torch.equal(method.matching_times.sigmas, torch.tensor(method.parts.noise_levels, dtype=torch.float64))
    assert (method.matching_times.first, method.critic_times.last) == (20, 999)
    inner = method.matching_times.linear_edges(4)
    assert torch.equal(inner, method.matching_times.quantile_edges(4))


def test_the_weight_of_networks_that_predict_noise(folder: Path) -> None:
    """sigma^-2 times the error of x0 is the error of the noise."""
    method = method_of(folder, fake_weight="eps", divergence="rkl", gan_weight=0.0, guidance=1.0)
    nets = {name: spec.build() for name, spec in method.networks().items()}
    seen: list[Tensor] = []
    nets["fake"]._decode = lambda *_: seen.append(torch.zeros(4, 4, 8, 8)) or seen[0]
    value = float(loss_of(method, nets, "fake_score", batch_of(4), count=4).value) / 4
    if not method.parts.build().schedule.velocity:  # the noise that was drawn against 0
        assert value == pytest.approx(1.0, rel=0.2)
    assert np.isfinite(value)


def test_without_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ResourceError, match="pip install diffusers"):
        parts_of(tmp_path)


def test_what_is_refused(tmp_path: Path) -> None:
    diffusers()
    with pytest.raises(CheckpointError, match="nothing"):
        parts_of(tmp_path / "nothing")
    pickled = parts_of(save(tmp_path / "pickled", safe=False))
    with pytest.raises(CheckpointError, match="safetensors"):
        pickled.pretrained()
    with pytest.raises(ConfigError, match="predicts 'sample'"):
        parts_of(save(tmp_path / "sample", "sample"))
    with pytest.raises(ConfigError, match="ends at pure noise"):
        parts_of(save(tmp_path / "zero", rescale_betas_zero_snr=True))
    good = save(tmp_path / "good")
    with pytest.raises(ConfigError, match=r"noise 80"):
        method_of(good, student_sigma=80.0)
    with pytest.raises(ConfigError, match=r"noise 0\.01"):
        method_of(good, steps={"levels": [0.01]})
    method = method_of(good)
    for wrong in ({}, {"text": torch.zeros(2, TOKENS + 1, WIDTH)}):
        with pytest.raises(ConfigError, match=r"under the name text"):
            method.parts.labels(wrong)
    unet = replace(method.parts).build().unet
    unet.register_to_config(class_embed_type="timestep")
    with pytest.raises(ConfigError, match="class_embed_type=timestep"):
        LatentDenoiser(unet, Schedule(torch.ones(2), velocity=False))
