"""Layouts of LLaDA and MDLM: what our network computes with their weights is what their formulas say."""

from __future__ import annotations

import pytest
import torch

from generative.errors import CheckpointError
from generative.nets.llada_layout import from_llada, llada_config
from generative.nets.mdlm_layout import from_mdlm, mdlm_config
from generative.nets.transformer import Transformer
from tests.support.peer_layouts import (
    LAYERS,
    LLADA,
    MDLM,
    llada_logits,
    llada_state,
    mdlm_logits,
    mdlm_state,
    noise,
)

T = 7


def network(config, state):
    net = Transformer(config, causal=False, mask_row=True).double()
    net.load_state_dict(state)
    return net.eval()


@torch.no_grad()
def test_llada():
    state = llada_state()
    config, mask = llada_config(LLADA, 24)
    net = network(config, from_llada(state, config, mask))
    ids = torch.randint(24, (2, T), generator=torch.Generator().manual_seed(1))
    ids[:, 2] = mask
    # Our mask id, after the vocabulary, is theirs.
    torch.testing.assert_close(net(ids.masked_fill(ids == mask, 24)), llada_logits(state, ids), rtol=1e-5, atol=1e-5)


def test_mdlm():
    state = mdlm_state()
    config = mdlm_config(MDLM, state)
    assert (config.family, config.layers, config.padded_vocab) == ("mdlm", LAYERS, 12)
    net = network(config, from_mdlm(state, config))
    ids = torch.randint(13, (2, T), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = net(ids)
    torch.testing.assert_close(logits, mdlm_logits(state, ids)[..., :12], rtol=1e-5, atol=1e-5)
    # The loss of some places, whose head has a bias.
    rows, targets, weights = torch.tensor([1, 5, 9]), torch.tensor([3, 0, 11]), torch.tensor([1.0, 0.5, 2.0])
    total, nll = net(ids, rows, targets, weights)
    expected = -logits.flatten(0, 1)[rows].log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(nll.double(), expected, rtol=1e-5, atol=1e-5)
    total.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("kind", ["llada", "mdlm"])
def test_all_that_does_not_fit_is_listed(kind):
    state = llada_state() if kind == "llada" else mdlm_state()
    config = llada_config(LLADA, 24)[0] if kind == "llada" else mdlm_config(MDLM, state)
    prefix = "model.transformer." if kind == "llada" else "backbone."
    name = "attn_out.weight"
    gone = {key: value for key, value in state.items() if not key.endswith(name)} | {f"{prefix}extra": noise(1)}
    with pytest.raises(CheckpointError) as caught:
        from_llada(gone, config, 21) if kind == "llada" else from_mdlm(gone, config)
    assert f"2 missing: blocks.0.{name}, blocks.1.{name}" in caught.value.problem
    assert "1 surplus: extra" in caught.value.problem


def test_configurations_that_do_not_tell_enough():
    for values, words in ((LLADA | {"n_layers": None}, "layers"), (LLADA | {"mask_token_id": 24}, "none of the 24")):
        with pytest.raises(CheckpointError, match=words):
            llada_config(values, 24)
    with pytest.raises(CheckpointError, match="told the time"):
        mdlm_config(MDLM | {"time_conditioning": True}, mdlm_state())
    with pytest.raises(CheckpointError, match="number of heads"):
        mdlm_config({"model_length": 32}, mdlm_state())
    with pytest.raises(CheckpointError, match=r"missing: (.|\n)* surplus: model.transformer(.|\n)*another --method"):
        mdlm_config(MDLM, llada_state())
    gone = {name: tensor for name, tensor in mdlm_state().items() if not name.endswith("embedding")}
    with pytest.raises(CheckpointError, match=r"do not fit: 1 missing: vocab_embed.embedding\nexpected"):
        mdlm_config(MDLM, gone)
