"""T2: steps and loops of DPS and PSLD against the released code, with its recorded noise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.methods.stsl.baselines.dps import Dps, dps_step
from generative.methods.stsl.baselines.psld import Psld, psld_step
from generative.methods.stsl.levels import Level, ddim_times, fresh_noise, ladder, linear_alphas, scaled_linear_alphas
from generative.methods.stsl.prior import discrete_prior
from generative.methods.stsl.problem import Problem
from generative.methods.stsl.walk import walk
from tests.generative.methods.stsl.golden import Recorded, arrays, operator_of, relative, settings, tiny_network

DPS, PSLD = "dps_step_s11", "psld_step_s31"


@dataclass(frozen=True)
class DpsCase:
    name: str

    @property
    def levels(self) -> list[Level]:
        times = settings(DPS)[self.name]["timestep_map"]
        return ladder(linear_alphas(), range(1000) if times == "all" else times)

    @property
    def how(self) -> Dps:
        told = settings(DPS)[self.name]
        return Dps(scale=told["scale"], sampler=told["sampler"])

    def problem(self) -> Problem:
        told = arrays(DPS)
        network = tiny_network(told, "model.")
        prior = discrete_prior(network, linear_alphas(), (3, 16, 16), variance=True)
        y = told[f"{self.name}.y"]
        return Problem(prior, operator_of(self.name, told.get(f"{self.name}.mask")), y, 0.05, Recorded({}))


@pytest.mark.parametrize("name", ["blur", "sr", "inp"])
def test_dps_steps(name) -> None:
    case, told = DpsCase(name), arrays(DPS)
    for t in sorted(set(settings(DPS)[name]["t"])):
        level, target = case.levels[-2 - t], case.levels[-1 - t]
        got = {key: told[f"{name}.t{t}.{key}"] for key in ("x_t", "noise", "x0_hat", "x_prev_uncond", "x_prev", "norm")}
        found = dps_step(case.problem(), got["x_t"], level, target, case.how, got["noise"])
        assert relative(found.z0, got["x0_hat"]) < 2e-4
        assert relative(found.unguided, got["x_prev_uncond"]) < 2e-4
        assert relative(found.guided, got["x_prev"]) < 2e-4
        assert relative(found.data, got["norm"]) < 2e-4


@pytest.mark.parametrize("name", ["sr", "inp"])
def test_dps_loops(name) -> None:
    case, told = DpsCase(name), arrays(DPS)
    noise = told[f"{name}.loop.noise"]

    def step(problem, z, number, level, target):
        found = dps_step(problem, z, level, target, case.how, noise[number][None])
        return found.guided, found.ratio

    found = walk(case.problem(), told[f"{name}.loop.x_T"], case.levels, step)
    assert relative(found.image, told[f"{name}.loop.x_0"]) < 1e-3
    assert found.cost.rows == found.cost.vjps == len(case.levels) - 1


def psld_problem(name: str) -> Problem:
    told = arrays(PSLD)

    def weights(part: str) -> tuple[Tensor, Tensor]:
        return told[f"model.vae.{part}.weight"], told[f"model.vae.{part}.bias"]

    def decode(z: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(z, scale_factor=2, mode="nearest"), *weights("dec"), padding=1).tanh()

    def encode(x: Tensor) -> Tensor:
        return F.conv2d(x, *weights("enc"), stride=2, padding=1)

    prior = discrete_prior(
        tiny_network(told, "model.eps."),
        scaled_linear_alphas(),
        (4, 8, 8),
        final="first",
        image=(3, 16, 16),
        encode=encode,
        decode=decode,
    )
    return Problem(prior, operator_of(name, told.get(f"{name}.mask")), told[f"{name}.y"], 0.05, Recorded({}))


def test_compvis_levels() -> None:
    told = arrays(PSLD)
    times = ddim_times(1000, 50)
    assert times == told["ddim_timesteps"].tolist()
    levels = ladder(scaled_linear_alphas(), times, "first")[::-1]
    bars = torch.tensor([level.alpha_bar for level in levels], dtype=torch.float64)
    torch.testing.assert_close(bars[1:], told["ddim_alphas"], rtol=1e-6, atol=0)
    torch.testing.assert_close(bars[:-1], told["ddim_alphas_prev"], rtol=1e-6, atol=0)


def test_fresh_noise_is_ddims_sigma() -> None:
    levels = ladder(linear_alphas(), ddim_times(1000, 20), "first")
    for level, target in itertools.pairwise(levels[:-1]):
        now, before = level.alpha_bar, target.alpha_bar
        wanted = 0.7 * ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
        assert abs(fresh_noise(level, target, 0.7) - wanted) < 1e-9


@pytest.mark.parametrize("name", ["blur", "sr", "inp"])
def test_psld_steps(name) -> None:
    told, case = arrays(PSLD), settings(PSLD)["cases"][name]
    how = Psld(omega=case["omega"], gamma=case["gamma"], legacy=True, noisy_prediction=True)
    problem = psld_problem(name)
    levels = problem.prior.levels(50)[::-1]
    for i in case["indices"]:
        got = {
            key: told[f"{name}.i{i}.{key}"]
            for key in ("z_t", "noise_ddim", "noise_meas", "z0_hat", "grad", "z_prev", "losses")
        }
        found = psld_step(problem, got["z_t"], levels[i + 1], levels[i], how, got["noise_ddim"], got["noise_meas"])
        assert relative(found.z0, got["z0_hat"]) < 2e-4
        assert relative(torch.cat([found.total, found.data, found.glue]), got["losses"]) < 2e-4
        assert relative(found.gradient, got["grad"]) < 2e-4
        assert relative(found.z, got["z_prev"]) < 2e-4
