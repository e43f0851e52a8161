"""SGMSE as a method: sums over valid rows, micro-batches, bf16, fine-tuning, operations."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.method import Context, DataFacts
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.method import Sgmse
from generative.randomness import Streams
from tests.generative.methods.sgmse.test_enhancer import BRIDGE, SMALL

KINDS = {
    "score": {},
    "v1": {"network": SMALL["network"] | {"variant": "v1"}},
    "denoiser": {"wrapping": {"loss_type": "denoiser"}, "weighting": "edm"},
    "bridge": BRIDGE,
    "bbed": {"process": {"name": "bbed"}},
    "crp": {"fine_tuning": {"steps": 2}, "init_from": "elsewhere"},
}


def method_of(**settings) -> Sgmse:
    config = SgmseConfig.model_validate(SMALL | settings)
    return Sgmse(config, DataFacts(sample_shape=(config.length,)))


def batch_of(method: Sgmse, count: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (0.2 * torch.randn(count, method.config.length, generator=generator) for _ in range(2))
    ids = torch.arange(count)
    valid = torch.ones(count, dtype=torch.bool)
    return {"clean": clean, "noisy": clean + noise, "sample_id": ids, "position": ids, "valid": valid}


def network(method: Sgmse) -> torch.nn.Module:
    torch.manual_seed(0)
    net = method.networks()["net"].build()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def loss_of(method, net, batch, rows=slice(None), step=3):
    part = {key: value[rows] for key, value in batch.items()}
    return method.loss(method.updates()[0], {"net": net}, part, Context(step, Streams(0, step), len(batch["valid"])))


@pytest.mark.parametrize("kind", KINDS)
def test_any_micro_batches_give_the_sum_and_padding_weighs_nothing(kind):
    method = method_of(**KINDS[kind])
    net, batch = network(method), batch_of(method)
    whole = loss_of(method, net, batch)
    parts = [loss_of(method, net, batch, rows) for rows in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(whole.value, parts[0].value + parts[1].value, rtol=1e-5, atol=1e-6)
    batch["valid"][3:] = False
    batch["noisy"][3:] = 0.0  # padding may be silence
    batch["clean"][3:] = 0.0
    padded = loss_of(method, net, batch)
    torch.testing.assert_close(padded.value, loss_of(method, net, batch, slice(0, 3)).value, rtol=1e-5, atol=1e-6)
    padded.value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(mean.count == 3 for mean in padded.metrics.values())


def test_times_and_noise_belong_to_samples_and_steps():
    method = method_of()
    net, batch = network(method), batch_of(method)
    first, again = loss_of(method, net, batch).value, loss_of(method, net, batch).value
    assert first == again
    assert first != loss_of(method, net, batch, step=4).value


def test_crops_are_as_loud_as_the_noisy_one_says():
    method = method_of()
    batch = batch_of(method)
    louder = batch | {"clean": 50 * batch["clean"], "noisy": 50 * batch["noisy"]}
    for one, other in zip(method.spectra(batch), method.spectra(louder), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_network_that_answers_0_has_half_a_unit_a_bin():
    method = method_of()
    batch = batch_of(method, 64)
    loss = method.loss(
        method.updates()[0],
        {"net": lambda x_t, y, t, valid: 0 * x_t},
        batch,
        Context(0, Streams(0), 64),
    )
    per_bin = loss.metrics["loss_per_bin"]
    assert float(per_bin.total / per_bin.count) == pytest.approx(0.5, rel=0.02)


def test_bf16_is_near_fp32():
    method = method_of(**BRIDGE)
    net, batch = network(method), batch_of(method)
    wide = loss_of(method, net, batch).value
    with torch.autocast("cpu", torch.bfloat16):
        narrow = loss_of(method, net, batch).value
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, wide, rtol=2e-2, atol=0)


def test_operations_are_those_that_torch_counts():
    method = method_of()
    net, batch = network(method), batch_of(method, 2)
    # The counter does not know attention's fast kernel on CPUs.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        loss_of(method, net, batch)
    assert method.flops(batch) == pytest.approx(3 * counter.get_total_flops(), rel=0.01)


def test_lengths_and_frames_must_fit():
    with pytest.raises(ConfigError, match=r"set data\.length=496"):
        Sgmse(SgmseConfig.model_validate(SMALL), DataFacts(sample_shape=(500,)))
    with pytest.raises(ConfigError, match=r"set method\.frames=34"):
        method_of(frames=33)


def test_fine_tuning_needs_weights_to_start_from():
    with pytest.raises(ValueError, match="fine_tuning without init_from"):
        SgmseConfig.model_validate(SMALL | {"fine_tuning": {}})


def test_the_sampler_of_the_contract_gives_one_wave_a_row():
    method = method_of(**BRIDGE, sampling={"steps": 1})
    batch = batch_of(method, 3)
    found = method.sampler({"net": network(method).eval()})(batch, Streams(0))
    assert found.shape == batch["noisy"].shape
