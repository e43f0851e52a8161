"""Steps and whole runs of the released samplers, with the recorded answers of the network in place of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from generative.methods.sgmse.bridges import SBVE
from generative.methods.sgmse.processes import OUVE
from generative.methods.sgmse.samplers.bridge import bridge
from generative.methods.sgmse.samplers.common import reverse_step
from generative.methods.sgmse.samplers.predictor_corrector import (
    ald_size,
    corrected,
    langevin_size,
    predictor_corrector,
)


class Replayed:
    """Recorded tensors one after the other, as a model or as noise."""

    def __init__(self, recorded: Iterable[Tensor]) -> None:
        self.left, self.asked = list(recorded), []

    def __call__(self, *arguments) -> Tensor:
        self.asked.append(arguments)
        return self.left.pop(0)


@pytest.fixture
def golden(arrays):
    return arrays("samplers")


@pytest.fixture
def outputs(arrays):
    return arrays("sampler_outputs")


def test_prior(golden, near) -> None:
    near(OUVE().prior(golden["y"], golden["prior_noise"]), golden["prior_x"], 1e-6)


@pytest.mark.parametrize("kind", ["rd", "em"])
def test_predictors(kind, golden, outputs, near) -> None:
    length = golden["rd_stepsize"].item() if kind == "rd" else 1 / golden["N"].item()
    t, score = golden["step_t"][0].item(), outputs["steps"][0]
    state, mean = reverse_step(OUVE(), score, golden["step_x"], golden["y"], t, length, golden[f"{kind}_noise"])
    near(mean, golden[f"{kind}_mean"], 1e-6)
    near(state, golden[f"{kind}_x"], 1e-6)


@pytest.mark.parametrize("kind", ["ald", "langevin"])
def test_correctors(kind, golden, outputs, near) -> None:
    x, mean = golden["step_x"], None
    snr, t = golden[f"{kind}_snr_steps"][0].item(), golden["step_t"][0].item()
    for score, z in zip(outputs["steps"][1 if kind == "ald" else 3 :], golden[f"{kind}_noise"], strict=False):
        size = ald_size(OUVE(), t, snr)
        if kind == "langevin":
            # The released code takes norms averaged over the batch; ours are those of each item.
            norms = [part.flatten(1).norm(dim=1) for part in (z, score)]
            torch.testing.assert_close(langevin_size(score, z, snr), 2 * (snr * norms[0] / norms[1]).square())
            size = 2 * (snr * norms[0].mean() / norms[1].mean()).square()
        x, mean = corrected(x, score, z, size)
    near(mean, golden[f"{kind}_mean"], 5e-6)
    near(x, golden[f"{kind}_x"], 5e-6)


RUNS = {
    "pc": {},
    "pc_nocorr": {"corrector": "none"},
    "pc2": {"snr": 0.33, "corrector_steps": 2, "denoise": False},
    "pc_uniform": {"step_rule": "uniform"},
}


@pytest.mark.parametrize("run", RUNS)
def test_predictor_corrector_runs(run, golden, outputs, near) -> None:
    model, noise = Replayed(outputs[run]), Replayed(golden[f"{run}_noises"])
    steps = golden["N"].item()
    found = predictor_corrector(model, OUVE(), golden["y"], noise, steps=steps, **RUNS[run])
    near(found.estimate, golden[f"{run}_result"], 2e-6)
    calls = golden.get(f"{run}_nfe", torch.tensor(8)).item()
    assert found.calls.tolist() == [calls, calls]
    assert not model.left
    times = [t for _, _, t in model.asked]
    assert all(t.shape == (2,) and t.dtype == torch.float32 for t in times)
    assert times[0].tolist() == [1.0, 1.0]
    assert times[-1].tolist() == pytest.approx([0.03, 0.03])


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_bridge_runs(kind, golden, outputs, near) -> None:
    model, noise = Replayed(outputs[f"sb_{kind}"]), Replayed(golden["sb_sde_noises"])
    steps = golden["sb_N"].item()
    found = bridge(model, SBVE(), golden["y"], noise, steps=steps, kind=kind)
    near(found.estimate, golden[f"sb_{kind}_result"], 1e-4)
    assert found.calls.tolist() == [steps, steps]
    assert [name for name, _ in noise.asked] == (["predictor"] * (steps - 1) if kind == "sde" else [])
    told = [t[0].item() for _, _, t in model.asked]
    assert told == pytest.approx([0.80002, 0.60004, 0.40006, 0.20008, 1e-4])
