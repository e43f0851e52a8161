from __future__ import annotations

import sys
import types

import pytest
import torch

from generative.errors import ConfigError
from generative.methods.sgmse.bridges import BBED, SBVE
from generative.methods.sgmse.losses import pesq_loss, score_matching
from generative.methods.sgmse.noise import complex_normal
from generative.methods.sgmse.objective import Objective
from generative.methods.sgmse.processes import OUVE, spread
from generative.methods.sgmse.spectrogram import Spectrogram
from generative.methods.sgmse.wrapping import Wrapping, denoiser_of, score_of
from generative.randomness import Streams

EDM = {"c_in": "edm", "c_out": "edm", "c_skip": "edm"}
CASES = {
    "sm_ncsnpp": (Wrapping("v1"), "1"),
    "sm_48k": (Wrapping("v1"), "1"),
    "sm_v2_over_sigma": (Wrapping(network_scaling="1/sigma"), "1"),
    "sm_v2_over_t": (Wrapping(network_scaling="1/t"), "1"),
    "sm_v2_edm": (Wrapping(c_in="edm", c_out="1/sigma"), "1"),
    "den_v2_w1": (Wrapping(loss_type="denoiser"), "1"),
    "den_v2_wsig2": (Wrapping(loss_type="denoiser"), "sigma^2"),
    "dp_v2_sbve": (Wrapping(loss_type="data_prediction"), "1"),
    "dp_v2_sbve_edm": (Wrapping(loss_type="data_prediction", **EDM), "1"),
}


def objective(case: str, golden) -> Objective:
    wrapping, weighting = CASES[case]
    n_fft, hop, _ = golden["dp_n_fft_hop_frames"].tolist()
    process = SBVE() if case.startswith("dp") else OUVE()
    return Objective(process, wrapping, Spectrogram(n_fft, hop), weighting)


def raw_output(wrapping: Wrapping, process, output, x_t, t):
    """The network's own output that the wrapping makes `output` of."""
    if wrapping.version == "v1":
        return -output
    std = spread(process.std(t), x_t)
    if wrapping.loss_type == "denoiser":
        return output * std**2 + x_t
    if wrapping.c_skip == "edm":
        variance = std**2 + 0.1**2
        return (output - 0.1**2 / variance * x_t) * variance.sqrt() / (std * 0.1)
    scale = {"none": 1.0, "1/sigma": std, "1/t": spread(t, x_t)}[wrapping.network_scaling]
    return output * scale * (std if wrapping.c_out == "1/sigma" else 1.0)


@pytest.mark.parametrize("case", CASES)
def test_published_losses(case, arrays, near) -> None:
    golden = arrays("losses")
    aim = objective(case, golden)
    state = aim.noised(golden["X"], golden["Y"], golden["t"], golden["z"])
    near(state.x_t, golden[f"{case}_x_t"], 1e-5)
    output = golden[f"{case}_forward_out"]
    raw = raw_output(aim.wrapping, aim.process, output, state.x_t, golden["t"])
    seen = []

    def net(x_t, y, t):
        seen.append((x_t, y, t))
        return raw

    near(aim.wrapping.output(net, aim.process, state.x_t, golden["Y"], golden["t"]), output, 1e-5)
    loss = aim.terms(net, golden["X"], golden["Y"], state)["loss"]
    assert loss.shape == (2,)
    assert loss.mean().item() == pytest.approx(golden[f"{case}_loss"].item(), rel=1e-4)
    scale = 1.0 if aim.wrapping.c_in == "1" else spread((aim.process.std(golden["t"]) ** 2 + 0.01) ** -0.5, state.x_t)
    near(seen[0][0], scale * state.x_t, 1e-6)
    near(seen[0][1], scale * golden["Y"], 1e-6)


def test_edm_weights_are_each_items_own(arrays) -> None:
    """The released code mixes the items of a batch; one item at a time is what is meant."""
    golden = arrays("losses")
    process = OUVE()
    aim = Objective(process, Wrapping(loss_type="denoiser", c_in="edm"), weighting="edm")
    state = aim.noised(golden["X"], golden["Y"], golden["t"], golden["z"])
    output = golden["den_v2_edm_REFERENCE_BUG_forward_out"]
    raw = raw_output(aim.wrapping, process, output, state.x_t, golden["t"])
    found = aim.terms(lambda *_: raw, golden["X"], golden["Y"], state)["loss"]
    variance = process.std(golden["t"]).square()
    error = (raw - state.mean).abs().square().sum((1, 2, 3)) / 2
    wanted = error * (variance + 0.01) / (variance * 0.01)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=0)
    assert found.mean().item() != pytest.approx(golden["den_v2_edm_REFERENCE_BUG_loss"].item(), rel=0.01)


def test_a_network_that_gives_zero_has_half_a_unit_a_bin() -> None:
    like = torch.zeros(4, 1, 256, 256, dtype=torch.complex64)
    noise = complex_normal(Streams(2), "noise", torch.arange(4), like)
    loss = score_matching(like, noise, torch.ones(4))
    assert loss.mean().item() == pytest.approx(0.5 * 256 * 256, rel=5e-3)


@pytest.mark.parametrize("process", [OUVE(), BBED(), SBVE()], ids=["ouve", "bbed", "sbve"])
def test_scores_and_denoisers_are_each_others_inverse(process, complex_noise) -> None:
    x0, y, noise = (complex_noise(3, 1, 4, 5, seed=seed) for seed in range(3))
    t = torch.tensor([0.01, 0.4, 0.95], dtype=torch.float64)
    x_t = process.mean(x0, y, t) + spread(process.std(t), y) * noise
    # The score of x_t given x0 is -z / std, and its denoiser is x0.
    given_x0 = score_of(process, lambda *_: x0)
    torch.testing.assert_close(given_x0(x_t, y, t), -noise / spread(process.std(t), y), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(denoiser_of(process, given_x0)(x_t, y, t), x0, rtol=1e-7, atol=1e-7)


def test_perfect_networks_have_no_loss(complex_noise) -> None:
    x0, y, noise = (complex_noise(2, 1, 32, 8, seed=seed) for seed in range(3))
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    for kind in ("score_matching", "denoiser", "data_prediction"):
        aim = Objective(SBVE(), Wrapping(loss_type=kind), Spectrogram(62, 16))
        state = aim.noised(x0, y, t, noise)
        perfect = {
            "score_matching": -noise / spread(aim.process.std(t), y),
            "denoiser": state.mean,
            "data_prediction": x0,
        }[kind]
        loss = aim.terms(lambda *_, answer=perfect: answer, x0, y, state)["loss"]
        assert loss.max().item() < 1e-20


def test_losses_and_noise_do_not_depend_on_the_batch(complex_noise) -> None:
    x0, y = complex_noise(4, 1, 32, 8), complex_noise(4, 1, 32, 8, seed=1)
    ids, streams = torch.tensor([3, 90, 4, 11]), Streams(7, 12)
    aim = Objective(OUVE(), Wrapping(network_scaling="1/sigma"))

    def rows(pick):
        state = aim.draw(x0[pick], y[pick], streams, ids[pick])
        return aim.terms(lambda x_t, y, t: 0.3 * x_t - 0.1 * y, x0[pick], y[pick], state)["loss"]

    whole = rows(slice(None))
    torch.testing.assert_close(whole[1:3], rows(slice(1, 3)), rtol=1e-12, atol=0)
    assert len(set(whole.tolist())) == 4


def test_padding_frames_leaves_the_noise_of_the_others_alone() -> None:
    short, long = (torch.zeros(2, 1, 5, frames, dtype=torch.complex64) for frames in (7, 64))
    noise = [complex_normal(Streams(1), "prior", torch.tensor([8, 9]), like) for like in (short, long)]
    assert torch.equal(noise[0], noise[1][..., :7])
    assert noise[1].abs().square().mean().item() == pytest.approx(1.0, abs=0.1)


def test_gradients_reach_the_network_through_every_term(complex_noise) -> None:
    x0, y, noise = (complex_noise(2, 1, 32, 8, seed=seed) for seed in range(3))
    aim = Objective(
        SBVE(),
        Wrapping(loss_type="data_prediction"),
        Spectrogram(62, 16),
        pesq_weight=0.5,
        pesq=lambda clean, found: (clean - found).square().mean(1),
    )
    answer = torch.zeros_like(x0).requires_grad_()
    terms = aim.terms(lambda *_: answer, x0, y, aim.noised(x0, y, torch.tensor([0.2, 0.7]).double(), noise))
    assert set(terms) == {"loss", "spectral", "time", "pesq"}
    torch.testing.assert_close(terms["loss"], terms["spectral"] + 1e-3 * terms["time"] + 0.5 * terms["pesq"])
    for name in ("spectral", "time", "pesq"):
        gradient = torch.autograd.grad(terms[name].sum(), answer, retain_graph=True)[0]
        assert torch.view_as_real(gradient).isfinite().all()
        assert (gradient.abs() > 0).any()


def test_wrong_combinations() -> None:
    with pytest.raises(ConfigError, match="v1"):
        Wrapping("v1", network_scaling="1/t")
    with pytest.raises(ConfigError, match="sigma_data"):
        Wrapping(sigma_data=0.0)
    with pytest.raises(ConfigError, match="pesq_weight"):
        Objective(SBVE(), Wrapping(loss_type="data_prediction"), pesq_weight=1.0)


def test_pesq_where_its_package_is_and_is_not(monkeypatch) -> None:
    class PesqLoss(torch.nn.Module):
        def __init__(self, factor, sample_rate):
            super().__init__()
            self.scale = factor * sample_rate

        def forward(self, reference, degraded):
            return self.scale * (reference - degraded).abs().mean(1)

    package = types.ModuleType("torch_pesq")
    package.PesqLoss = PesqLoss
    monkeypatch.setitem(sys.modules, "torch_pesq", package)
    assert pesq_loss(8000)(torch.zeros(2, 4), torch.tensor([[1.0], [-2.0]])).tolist() == [8000.0, 16000.0]
    monkeypatch.setitem(sys.modules, "torch_pesq", None)
    with pytest.raises(ConfigError, match="torch-pesq"):
        pesq_loss(16000)
