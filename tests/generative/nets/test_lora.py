"""Changes of low rank in the transformer: what is trained, what it computes, and where it may start from."""

from __future__ import annotations

import pytest
import torch

from generative.errors import CheckpointError, ConfigError
from generative.nets.lora import BASE, DOWN, UP, build_transformer, changed_layers, merged
from generative.nets.lora_config import FineTuningConfig
from generative.nets.transformer import Transformer
from generative.training.networks import compare_weights, load_weights
from tests.support.sampling_cases import CONFIG, VOCAB, sharp_net

pytest.importorskip("peft")
LORA = FineTuningConfig(rank=3, alpha=6.0, layers=["*.qkv", "*.gate_up"])
IDS = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))


def changed(lora=LORA, causal=False):
    torch.manual_seed(1)
    return build_transformer(CONFIG, lora, causal=causal, mask_row=not causal).double()


def shaken(net):
    """With changes that change something."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(UP):
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    return net


def test_changes_alone_are_trained_and_start_as_nothing():
    base, net = sharp_net(), changed()
    load_weights(net, base.state_dict(), "the base")
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {
        f"blocks.{i}.{layer}{end}"
        for i in range(2)
        for layer in ("attention.qkv", "feed_forward.gate_up")
        for end in (DOWN, UP)
    }
    torch.testing.assert_close(net(IDS), base(IDS), rtol=0, atol=0)
    assert all(net.get_parameter(f"{layer}{DOWN}").shape[0] == 3 for layer in changed_layers(net.state_dict()))


def test_merged_weights_compute_the_same():
    net = shaken(changed())
    whole = Transformer(CONFIG, causal=False, mask_row=True).double()
    whole.load_state_dict(merged(net.state_dict(), LORA))
    torch.testing.assert_close(whole(IDS), net(IDS), rtol=1e-10, atol=1e-10)
    layer = "blocks.0.attention.qkv"
    state = net.state_dict()
    expected = state[layer + BASE] + 2.0 * state[layer + UP] @ state[layer + DOWN]
    torch.testing.assert_close(whole.get_parameter(f"{layer}.weight"), expected)
    assert not torch.allclose(expected, state[layer + BASE])


def test_a_base_without_a_mask_token_gives_what_it_has():
    base, net = sharp_net(causal=True), changed()
    fresh = net.get_parameter("embedding.weight").detach().clone()
    load_weights(net, base.state_dict(), "the base")
    embedding = net.get_parameter("embedding.weight")
    assert torch.equal(embedding[:-1], base.embedding.weight)
    assert torch.equal(embedding[-1], fresh[-1])


def test_weights_with_changes_are_loaded_with_them():
    one, other = shaken(changed()), changed()
    load_weights(other, one.state_dict(), "a run")
    torch.testing.assert_close(other(IDS), one(IDS), rtol=0, atol=0)
    partly = {name: t for name, t in one.state_dict().items() if not name.endswith("blocks.1.attention.qkv" + UP)}
    with pytest.raises(CheckpointError, match="lora_B"):
        load_weights(other, partly, "a damaged run")
    with pytest.raises(CheckpointError):
        compare_weights(sharp_net(), {n: tuple(t.shape) for n, t in one.state_dict().items()}, "a run with changes")


def test_what_is_asked_for_is_trained_whole():
    net = changed(LORA.model_copy(update={"whole": ["embedding.*"]}))
    assert net.get_parameter("embedding.weight").requires_grad
    assert not net.get_parameter("head.weight").requires_grad


@pytest.mark.parametrize("wrong", [{"layers": ["*.query"]}, {"whole": ["embeding.weight"]}])
def test_patterns_that_fit_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="fits no"):
        changed(LORA.model_copy(update=wrong))


def test_a_network_of_names_only_can_be_built():
    with torch.device("meta"):
        net = build_transformer(CONFIG, LORA, causal=True, mask_row=False)
    assert all(parameter.is_meta for parameter in net.parameters())
