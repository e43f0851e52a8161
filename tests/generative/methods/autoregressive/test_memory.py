"""Keys and values that are kept change nothing but the work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generative.methods.autoregressive.sampler import AutoregressiveSampler
from generative.randomness import Streams
from tests.support.sampling_cases import CONFIG, VOCAB, sharp_net


class Counting:
    def __init__(self, net):
        self.net, self.fed = net, 0

    def __call__(self, ids, *args, **options):
        self.fed += ids.numel()
        return self.net(ids, *args, **options)


@pytest.fixture(scope="module")
def net():
    return Counting(sharp_net(CONFIG.model_copy(update={"kv_groups": 1}), causal=True))


@pytest.mark.parametrize("eos_id", [None, 4])
@pytest.mark.parametrize("prompt", [1, 5])
def test_samples_are_those_without_a_memory(net, eos_id, prompt):
    sampler = AutoregressiveSampler(net, 20, VOCAB, temperature=1.5, top_k=12, eos_id=eos_id)
    condition = {"sample_id": torch.arange(16), "prompt": torch.full((16, prompt), 4)}
    seen = []
    net.fed = 0
    kept = sampler(condition, Streams(0), lambda place, tokens: seen.append((place, tokens)))
    work = net.fed
    assert torch.equal(kept, replace(sampler, memory=False)(condition, Streams(0)))
    assert work <= 16 * 20
    assert [place for place, _ in seen] == list(range(prompt, prompt + len(seen)))
    assert torch.equal(torch.stack([tokens for _, tokens in seen], 1), kept[:, prompt : prompt + len(seen)])
    if eos_id is None:
        assert work == 16 * 19
        return
    assert work < 16 * 19
    ends = [row.index(eos_id) if eos_id in row else None for row in kept[:, prompt:].tolist()]
    assert any(end is not None and end > 0 for end in ends)
    for row, end in zip(kept[:, prompt:].tolist(), ends, strict=True):
        assert end is None or set(row[end:]) == {eos_id}


def test_a_sample_alone_is_the_sample_among_sixteen(net):
    sampler = AutoregressiveSampler(net, 12, VOCAB, top_p=0.9, eos_id=4)
    ids, prompt = torch.arange(16), torch.arange(16)[:, None]
    whole = sampler({"sample_id": ids, "prompt": prompt}, Streams(0))
    for i in (0, 7, 15):
        alone = sampler({"sample_id": ids[i, None], "prompt": prompt[i, None]}, Streams(0))
        assert torch.equal(alone[0], whole[i])
