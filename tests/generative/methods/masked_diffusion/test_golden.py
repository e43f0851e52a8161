"""Agreement with numbers made by the released code (tests/golden/masked_diffusion_lm)."""

from __future__ import annotations

import json

import pytest
import torch

from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import Scorer, chain_rule, monte_carlo, weighted_nll
from generative.methods.masked_diffusion.losses import masked_cross_entropy, masking_at
from generative.nets.smdm_layout import to_smdm

MASK = 64


def loss_of(net, ids, t, uniform):
    lengths = torch.full((len(ids),), ids.shape[1])
    masking = masking_at(MaskedDiffusionConfig(), t, uniform, lengths)
    valid = torch.ones(len(ids), dtype=torch.bool)
    value, _ = masked_cross_entropy(net, ids, masking, MASK, valid)
    return value / ids.numel(), masking


def test_loss_and_masking(golden, tiny):
    expected = golden("tiny_loss")
    loss, masking = loss_of(tiny(), expected["input_ids"], expected["t"], expected["u"])
    assert torch.equal(masking.mask, expected["mask"])
    assert torch.equal(masking.level, expected["p_mask"])
    torch.testing.assert_close(loss.detach(), expected["loss"], rtol=1e-6, atol=0)


def test_gradients(golden, tiny):
    expected, net = golden("tiny_loss"), tiny()
    loss_of(net, expected["input_ids"], expected["t"], expected["u"])[0].backward()
    ours = to_smdm({name: p.grad for name, p in net.named_parameters()}, net.config)
    norm = torch.stack([g.norm() for g in ours.values()]).norm()
    torch.testing.assert_close(norm, expected["grad_global_norm"], rtol=1e-5, atol=0)
    for name, theirs in expected.items():
        if name.startswith("grad/"):
            torch.testing.assert_close(ours[name[5:]], theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_cross_entropy_of_each_masked_token(golden, tiny):
    expected, net = golden("tiny_loss"), tiny()
    rows = expected["mask"].flatten().nonzero()[:, 0]
    weights = (1.0 / expected["p_mask"])[rows // 24]
    _, nll = net(expected["noisy_ids"], rows, expected["input_ids"].flatten()[rows], weights)
    torch.testing.assert_close(nll * weights, expected["weighted_token_nll"], rtol=1e-4, atol=1e-4)


def test_eight_training_steps(golden, tiny):
    expected, net = golden("tiny_train8"), tiny().train()
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = float(expected["lr"][step])
        ids, t, uniform = (expected[name][step] for name in ("input_ids", "t", "u"))
        loss, _ = loss_of(net, ids, t, uniform)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        assert float(loss.detach()) == pytest.approx(float(expected["loss"][step]), rel=1e-4)
        assert float(norm) == pytest.approx(float(expected["grad_norm_before_clip"][step]), rel=1e-3)
        optimizer.step()
        optimizer.zero_grad()
    ours = to_smdm(net.state_dict(), net.config)
    for name, length in zip(expected["param_names"], expected["param_l2"], strict=True):
        assert float(ours[str(name)].norm()) == pytest.approx(float(length), rel=1e-5)
    torch.testing.assert_close(ours["lm_head.weight"], expected["lm_head_after"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_likelihood_of_a_continuation(golden, tiny, guidance):
    expected = golden("tiny_likelihood")
    score = Scorer(Denoiser(tiny(), MASK, guidance=guidance))
    ids = torch.cat([expected["prefix"], expected["target"]])[None]
    target = torch.arange(20)[None] >= 9
    each = []
    for offset, uniform in zip(expected["mc_u0"], expected["mc_u"], strict=True):
        t = (offset + torch.arange(8) / 8) % 1
        each.append(monte_carlo(score, ids, target, t[None], lambda j, uniform=uniform: uniform[j][None]))
    mean = torch.stack(each).mean()
    assert float(mean) == pytest.approx(float(expected[f"mc_nll_cfg{guidance}"]), rel=1e-5)
    nll = chain_rule(score, ids, target)
    assert float(nll) == pytest.approx(float(expected[f"chain_nll_cfg{guidance}"]), rel=1e-5)


def test_guided_logits(golden, tiny):
    expected = golden("tiny_likelihood")
    known = torch.arange(24)[None] < 9
    logits = Denoiser(tiny(), MASK, guidance=0.6)(expected["cfg_input"], known, torch.arange(24))
    torch.testing.assert_close(logits[None].detach(), expected["cfg_logits_w0.6_promptlen9"], rtol=0, atol=2e-4)


def test_exact_count_estimate_of_llada(golden, tiny):
    expected = golden("tiny_peers")
    noisy, share = expected["llada_fp_noisy"], expected["llada_fp_pmask"]
    mask = noisy == MASK
    original = next(row for row in expected["input_ids"] if torch.equal(torch.where(mask, MASK, row), noisy))
    target = mask.any(0)
    torch.testing.assert_close(mask.sum(1) / target.sum(), share)
    nll = weighted_nll(Scorer(Denoiser(tiny(), MASK)), original.expand(8, -1), mask, 1 / share, target.expand(8, -1))
    assert float(nll.mean()) == pytest.approx(float(expected["llada_fp_nll"]), rel=1e-5)


def test_steps_of_a_budget(golden_folder):
    from generative.method import DataFacts
    from generative.methods.masked_diffusion.method import MaskedDiffusion

    sizes = json.loads((golden_folder / "param_counts.json").read_text())
    for run, expected in json.loads((golden_folder / "max_steps.json").read_text()).items():
        key = dict(part.split("=") for part in run.split())
        size = sizes[f"Diff_LLaMA_{key['model']}M"]
        network = {"layers": size["n_layer"], "heads": size["n_head"], "width": size["n_embd"]}
        network |= {"ff_width": size["intermediate_size"], "vocab_size": 32000}
        ratio = 0.0 if key["ssl"] == "None" else float(key["ssl"])
        method = MaskedDiffusion(MaskedDiffusionConfig(network=network, random_length_ratio=ratio), DataFacts())
        steps = method.steps_for_flops(float(key["flops"]), int(key["batch_size"]), 2048)
        assert steps == expected["max_step"], run
