from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from generative.errors import CheckpointError, ConfigError
from generative.nets.accounting import non_embedding_parameters, total_parameters, training_flops
from generative.nets.attention import rope_tables
from generative.nets.smdm_layout import from_smdm, to_smdm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig, fit_to_data

GOLDEN = Path(__file__).parents[2] / "golden" / "masked_diffusion_lm"
SMALL = TransformerConfig(layers=2, heads=4, width=32, ff_width=48, vocab_size=50, max_length=16)


def network(config=SMALL, causal=False, seed=0):
    torch.manual_seed(seed)
    return Transformer(config, causal=causal, mask_row=not causal)


def ids(rows=3, length=12, vocab=50, seed=0):
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def forward():
    with np.load(GOLDEN / "tiny_forward.npz") as arrays:
        return {name: torch.tensor(array) for name, array in arrays.items()}


def golden_network(kind, rope):
    config = TransformerConfig(
        layers=2, heads=4, width=64, ff_width=128, vocab_size=64, max_length=64, rope_table_dtype=rope
    )
    net = Transformer(config, causal=kind == "arm", mask_row=kind == "mdm")
    net.load_state_dict(from_smdm(load_file(GOLDEN / f"tiny_{kind}.safetensors"), config))
    return net


@pytest.mark.parametrize("rope", ["fp32", "bf16"])
def test_golden_logits(forward, rope):
    masked = golden_network("mdm", rope)(forward["noisy_ids"]).detach()
    causal = golden_network("arm", rope)(forward["input_ids"]).detach()
    torch.testing.assert_close(masked, forward[f"logits_rope_{rope}"], rtol=0, atol=2e-4)
    torch.testing.assert_close(causal, forward[f"arm_logits_rope_{rope}"], rtol=0, atol=2e-4)


def test_golden_logits_of_clean_input(forward):
    logits = golden_network("mdm", "fp32")(forward["input_ids"]).detach()
    torch.testing.assert_close(logits, forward["logits_clean_input_fp32"], rtol=0, atol=2e-4)


def test_golden_hidden_states(forward):
    net, states = golden_network("mdm", "fp32"), []
    for module in (*net.blocks, net.norm):
        module.register_forward_hook(lambda _, __, output: states.append(output.detach()))
    net(forward["noisy_ids"])
    torch.testing.assert_close(torch.stack(states[:2]), forward["hidden_after_block"], rtol=0, atol=2e-4)
    torch.testing.assert_close(states[2], forward["final_norm_out"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("rope", ["fp32", "bf16"])
def test_golden_rotary_tables(forward, rope):
    config = SMALL.model_copy(update={"width": 64, "rope_table_dtype": rope})
    cos, sin = rope_tables(config, torch.arange(64))
    torch.testing.assert_close(cos, forward[f"rope_cos_{rope}"], rtol=0, atol=1e-6)
    torch.testing.assert_close(sin, forward[f"rope_sin_{rope}"], rtol=0, atol=1e-6)


def test_golden_next_token_loss(forward):
    tokens = forward["input_ids"]
    rows = (torch.arange(3)[:, None] * 24 + torch.arange(23)).flatten()
    total, nll = golden_network("arm", "fp32")(tokens, rows, tokens[:, 1:].flatten(), torch.ones(69))
    torch.testing.assert_close(nll.mean(), forward["arm_next_token_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(total.detach() / 69, forward["arm_next_token_loss"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["mdm", "arm"])
def test_published_layout_round_trip(kind):
    state, net = load_file(GOLDEN / f"tiny_{kind}.safetensors"), golden_network(kind, "fp32")
    back = to_smdm(net.state_dict(), net.config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_published_layout_groups_queries_with_their_key_and_value():
    """Two groups of two queries, head width 4: rows of the fused matrix are q q k v, q q k v."""
    config = TransformerConfig(layers=1, heads=4, kv_groups=2, width=16, ff_width=8, vocab_size=64)
    state = to_smdm(network(config).state_dict(), config)
    heads = ["q0", "q1", "k0", "v0", "q2", "q3", "k1", "v1"]
    fused = torch.arange(8.0).repeat_interleave(4)[:, None].expand(-1, 16)
    ours = from_smdm({**state, "transformer.h.0.attn.attn.weight": fused}, config)
    rows = ours["blocks.0.attention.qkv.weight"][::4, 0].int().tolist()
    assert [heads[row] for row in rows] == ["q0", "q1", "q2", "q3", "k0", "k1", "v0", "v1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("lm_head.weight"), "do not fit: 1 missing: lm_head.weight"),
        (
            lambda state: state.update({"transformer.h.2.norm_1.weight": torch.ones(64)}),
            "do not fit: 1 surplus: transformer.h.2.norm_1.weight",
        ),
        (lambda state: state.update({"transformer.h.0.attn.attn.weight": torch.ones(100, 64)}), "do not fit"),
    ],
)
def test_published_layout_errors(damage, message):
    state, config = load_file(GOLDEN / "tiny_mdm.safetensors"), golden_network("mdm", "fp32").config
    damage(state)
    with pytest.raises(CheckpointError, match=message):
        from_smdm(state, config)


def test_initial_weights():
    config = TransformerConfig(layers=3, heads=4, width=128, ff_width=256, vocab_size=512)
    net = network(config)
    assert float(net.embedding.weight.detach().std()) == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.02)
    assert float(net.head.weight.detach().std()) == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.02)
    for block in net.blocks:
        assert float(block.attention.qkv.weight.detach().std()) == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.03)
        for branch in (block.attention.out, block.feed_forward.down):
            assert float(branch.weight.detach().std()) == pytest.approx(1 / (math.sqrt(128) * 3), rel=0.03)
        assert torch.equal(block.attention_norm.weight, torch.ones(128))


def test_initial_weights_follow_the_seed_and_the_default_device():
    assert torch.equal(network(seed=1).head.weight, network(seed=1).head.weight)
    with torch.device("meta"):
        assert network().head.weight.is_meta


def test_parameter_counts_are_those_of_the_module():
    config = SMALL.model_copy(update={"kv_groups": 2})
    net = network(config)
    assert sum(p.numel() for p in net.parameters()) == total_parameters(config, mask_row=True)
    outer = net.embedding.weight.numel() + net.head.weight.numel()
    assert total_parameters(config, mask_row=True) - outer == non_embedding_parameters(config)


@pytest.mark.parametrize("causal", [False, True])
def test_flops_are_those_that_the_counter_of_torch_sees(causal):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    net, tokens = network(causal=causal), ids(1, 16)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(tokens).sum().backward()
    # The counter sees the whole square of attention, also where half of it is masked.
    expected = training_flops(SMALL, 16, head_rows=16, causal=False)
    assert counter.get_total_flops() == expected
    assert (training_flops(SMALL, 16, 16, causal) < expected) == causal


def test_the_mask_token_has_no_logit():
    logits = network()(torch.full((1, 5), SMALL.padded_vocab))
    assert logits.shape == (1, 5, SMALL.padded_vocab)


def test_causal_positions_see_nothing_later_and_bidirectional_ones_do():
    tokens, changed = ids(1), ids(1)
    changed[0, 7] = (changed[0, 7] + 1) % 50
    for causal in (True, False):
        net = network(causal=causal)
        same = (net(tokens)[0, :7] == net(changed)[0, :7]).all()
        assert bool(same) == causal


def test_rows_choose_positions():
    net, tokens, rows = network(), ids(), torch.tensor([3, 20, 35])
    torch.testing.assert_close(net(tokens, rows), net(tokens).flatten(0, 1)[rows])


def test_loss_at_rows_is_cross_entropy_of_the_logits():
    net, tokens, rows = network().double(), ids(), torch.tensor([3, 20, 35])
    targets, weights = torch.tensor([1, 2, 3]), torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    total, _ = net(tokens, rows, targets, weights)
    nll = torch.nn.functional.cross_entropy(net(tokens, rows), targets, reduction="none")
    names, parameters = zip(*net.named_parameters(), strict=True)
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (total, (weights * nll).sum()))
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, msg=name)


def test_no_rows_reach_every_parameter():
    net, none = network(), torch.zeros(0, dtype=torch.int64)
    total, _ = net(ids(), none, none, torch.zeros(0))
    total.backward()
    assert total.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_positions_beyond_the_length_have_no_effect():
    net, tokens, lengths = network().double(), ids(2), torch.tensor([7, 12])
    changed = tokens.clone()
    changed[0, 7:] = 0
    torch.testing.assert_close(net(tokens, lengths=lengths)[0, :7], net(changed, lengths=lengths)[0, :7])
    torch.testing.assert_close(net(tokens, lengths=lengths)[0, :7], net(tokens[:1, :7])[0])
    torch.testing.assert_close(net(tokens, lengths=lengths)[1], net(tokens[1:])[0])


def test_grouped_queries_equal_repeated_keys_and_values():
    grouped = network(SMALL.model_copy(update={"kv_groups": 2})).double()
    full = network().double()
    state = grouped.state_dict()
    for i in range(2):
        q, k, v = state[f"blocks.{i}.attention.qkv.weight"].split((32, 16, 16))
        wide = [m.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32) for m in (k, v)]
        state[f"blocks.{i}.attention.qkv.weight"] = torch.cat([q, *wide])
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(ids()), full(ids()))


def test_activation_checkpointing_changes_nothing():
    net, gradients = network(), []
    for checkpointing in (False, True):
        net.activation_checkpointing = checkpointing
        gradients.append(torch.autograd.grad(net(ids()).square().sum(), list(net.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_blocks_compile_as_one_graph():
    """The eager backend needs no compiler; `fullgraph` refuses any graph break."""
    net, tokens = network(), ids()
    expected = net(tokens)
    for block in net.blocks:
        block.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(net(tokens), expected)


def test_the_whole_network_compiles_with_changing_numbers_of_rows():
    net = network(SMALL.model_copy(update={"layers": 1}))
    compiled = torch.compile(net, backend="eager", dynamic=None)
    for count in (5, 9, 0):
        rows = torch.arange(count)
        total, _ = compiled(ids(), rows, rows, torch.ones(count))
        expected, _ = net(ids(), rows, rows, torch.ones(count))
        torch.testing.assert_close(total, expected)


def test_bf16_autocast_stays_close():
    net, tokens = network(), ids()
    with torch.autocast("cpu", torch.bfloat16):
        rows = torch.arange(36)
        total, _ = net(tokens, rows, tokens.flatten(), torch.ones(36))
    total.backward()
    exact, _ = net(tokens, rows, tokens.flatten(), torch.ones(36))
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "layers\n.* greater than 0"),
        ({"heads": 3}, "multiple of 2 x heads"),
        ({"heads": 4, "kv_groups": 3}, "does not divide heads=4"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"rope_table_dtype": "fp16"}, "fp32"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ValidationError, match=message):
        TransformerConfig(**sizes)


def test_too_long_a_sequence_is_an_error_that_names_the_key():
    with pytest.raises(ConfigError, match="max_length"):
        network()(ids(1, 17))
    with pytest.raises(ConfigError, match=r"data\.sequence_length"):
        fit_to_data(SMALL, 50, 17)


def test_vocabulary_comes_from_the_data_unless_set():
    free = SMALL.model_copy(update={"vocab_size": None})
    assert fit_to_data(free, 257, None).padded_vocab == 320
    assert fit_to_data(SMALL, 40, None).vocab_size == 50
    with pytest.raises(ConfigError, match="vocab_size"):
        fit_to_data(SMALL, 51, None)
    with pytest.raises(ConfigError, match="not set"):
        _ = free.padded_vocab


def test_first_weights_under_mup():
    wide = network(SMALL.model_copy(update={"base_width": SMALL.width // 4}))
    usual = network()
    assert wide.head.weight.abs().max() == 0
    torch.testing.assert_close(wide.embedding.weight, 2 * usual.embedding.weight)
    torch.testing.assert_close(wide.blocks[0].attention.qkv.weight, usual.blocks[0].attention.qkv.weight)
    with pytest.raises(ValueError, match="no muP"):
        TransformerConfig(family="mdlm", base_width=64)
