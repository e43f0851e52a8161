"""Supervised fine-tuning: prompts kept, responses and ends of text learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generative.method import DataFacts
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.autoregressive.method import Autoregressive
from generative.methods.masked_diffusion.answers import Answers, divisor_of, mask_answers
from generative.methods.masked_diffusion.config import AnswerConfig, MaskedDiffusionConfig
from generative.methods.masked_diffusion.losses import masked_cross_entropy, masking_at
from generative.methods.masked_diffusion.method import MaskedDiffusion
from tests.support.sampling_cases import CONFIG, VOCAB, sharp_net

MASK = 64


@pytest.fixture
def batch_of(make_batch):
    def make(tokens, prompts):
        closed = torch.cat([tokens, torch.full((len(tokens), 1), 2)], dim=1)
        return {**make_batch(closed), "prompt_length": prompts}

    return make


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "loss_smdm"),
        ({"prompt_dropping": 1.0}, "loss_smdm_cfg_dropped_prompt"),
        ({"normalisation": "answers"}, "loss_llada_per_answer_len"),
    ],
)
def test_losses_of_the_released_codes(golden, tiny, batch_of, context, settings, name):
    expected, config = golden("tiny_sft"), AnswerConfig(**settings)
    ids = expected["input_ids"]
    batch = batch_of(ids, expected["prompt_length"])
    answers = Answers.of(batch)
    plain = masking_at(MaskedDiffusionConfig(), expected["t"], expected["u"], torch.full((3,), 24))
    masking, hidden = mask_answers(config, answers, plain, batch, context(3))
    assert torch.equal(masking.mask, expected["loss_mask"])
    noisy = "noisy_ids_cfg_dropped" if config.prompt_dropping else "noisy_ids"
    assert torch.equal(ids.masked_fill(masking.mask | hidden, MASK), expected[noisy])
    total, _ = masked_cross_entropy(tiny(), ids, masking, MASK, batch["valid"], hidden=hidden)
    loss = total.detach() / divisor_of(config, answers, batch["valid"])
    torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=0)


def test_prompts_are_dropped_by_sample_and_in_their_share(make_batch, context):
    n = 2000
    batch = {**make_batch(size=n, length=6, vocab=VOCAB), "prompt_length": torch.full((n,), 3)}
    method = MaskedDiffusion(
        MaskedDiffusionConfig(network=CONFIG, answers={"prompt_dropping": 0.25}), DataFacts(VOCAB, 6)
    )
    masking = masking_at(method.config, torch.rand(n), torch.rand(n, 6), torch.full((n,), 6))
    _, hidden = mask_answers(method.config.answers, Answers.of(batch), masking, batch, context(n))
    assert torch.equal(hidden.any(1), hidden[:, :3].all(1))
    assert not hidden[:, 3:].any()
    assert float(hidden[:, 0].float().mean()) == pytest.approx(0.25, abs=0.03)
    rows = torch.arange(100, 140)
    part = {name: values[rows] for name, values in batch.items()}
    _, again = mask_answers(
        method.config.answers,
        Answers.of(part),
        replace(masking, mask=masking.mask[rows], weight=masking.weight[rows]),
        part,
        context(n),
    )
    assert torch.equal(again, hidden[rows])


@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("sampler", ["stratified", "exact"])
def test_only_answers_are_learned_and_they_are_the_divisor(make_batch, context, sampler, block_size):
    net = sharp_net()
    batch = {**make_batch(size=4, length=6, vocab=VOCAB), "prompt_length": torch.tensor([0, 5, 2, 3])}
    config = MaskedDiffusionConfig(
        network=CONFIG, time_sampler=sampler, block_size=block_size, answers={"prompt_dropping": 0.5}
    )
    method = MaskedDiffusion(config, DataFacts(VOCAB, 6))
    (update,) = method.updates()
    assert int(method.divisor(update, batch, context(4))) == 24 - 10
    found = method.loss(update, {"net": net}, batch, context(4))
    assert float(found.metrics["masked_fraction"].total) <= 14
    padded = {**batch, "valid": torch.tensor([True, False, True, True])}
    assert int(method.divisor(update, padded, context(4))) == 13
    everything = MaskedDiffusion(
        config.model_copy(update={"answers": AnswerConfig(noise_prompts=True)}), DataFacts(VOCAB, 6)
    )
    assert int(everything.divisor(update, batch, context(4))) == 24


def test_a_prompt_that_is_hidden_does_not_matter(make_batch, context):
    net = sharp_net()
    method = MaskedDiffusion(
        MaskedDiffusionConfig(network=CONFIG, block_size=3, answers={"prompt_dropping": 1.0}), DataFacts(VOCAB, 6)
    )
    batch = {**make_batch(size=4, length=6, vocab=VOCAB), "prompt_length": torch.full((4,), 4)}
    other = {**batch, "tokens": batch["tokens"].clone()}
    other["tokens"][:, :4] = 1
    (update,) = method.updates()
    values = [method.loss(update, {"net": net}, each, context(4)).value for each in (batch, other)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=0)


def test_the_autoregressive_model_learns_the_same_tokens(make_batch, context):
    net = sharp_net(causal=True)
    method = Autoregressive(AutoregressiveConfig(network=CONFIG), DataFacts(VOCAB, 6))
    batch = {**make_batch(size=3, length=6, vocab=VOCAB), "prompt_length": torch.tensor([0, 1, 4])}
    (update,) = method.updates()
    assert int(method.divisor(update, batch, context(3))) == 6 + 6 + 3
    logits = net(batch["tokens"][:, :-1]).log_softmax(-1)
    nll = -logits.gather(2, batch["tokens"][:, 1:, None])[:, :, 0]
    expected = nll[0].sum() + nll[1].sum() + nll[2, 3:].sum()
    torch.testing.assert_close(method.loss(update, {"net": net}, batch, context(3)).value, expected)
