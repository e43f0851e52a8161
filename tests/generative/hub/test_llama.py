"""An exported autoregressive model computes in transformers what it computes here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from generative.errors import ConfigError
from generative.hub import llama
from generative.hub.card import Card
from generative.hub.export import Export
from generative.hub.tensors import whole_tensors
from generative.methods.autoregressive.sampler import AutoregressiveSampler
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams
from generative.training.checkpoint import CheckpointStore, shares
from generative.training.networks import weight_names
from tests.support.toys import Net

transformers = pytest.importorskip("transformers")

CARD = Card("tiny", "A model.", "transformers", "text-generation", [], {}, "", [], "", ("python", "pass"))
SIZES = {
    "plain": TransformerConfig(layers=2, heads=2, width=16, ff_width=24, vocab_size=24, padding_multiple=8),
    "grouped, padded, another base and eps": TransformerConfig(
        layers=3,
        heads=4,
        kv_groups=2,
        width=32,
        ff_width=40,
        vocab_size=21,
        padding_multiple=16,
        max_length=64,
        rope_base=500.0,
        norm_eps=1e-2,
    ),
}


def export(module: Transformer, folder: Path, dtype: torch.dtype = torch.float32, eos: int | None = None) -> None:
    """As the command does, from a checkpoint of two ranks."""
    named = {f"net/net/param/{name}": tensor for name, tensor in module.state_dict().items()}
    stores = [CheckpointStore(folder.parent / "checkpoints", rank, 2, "attempt") for rank in range(2)]
    for rank, store in enumerate(stores):
        store.save(1, shares(named, rank, 2), {})
    for store in stores:
        store.wait()
    checkpoint = stores[0].open(1)
    sizes = llama.llama_sizes(module)
    mask = llama.has_mask_row(module)
    whole = whole_tensors(checkpoint, weight_names(checkpoint, "net"), dtype)
    tensors, source = llama.llama_tensors(whole, checkpoint, sizes, mask)
    config = llama.llama_config(sizes, eos, mask) | {"torch_dtype": str(dtype).removeprefix("torch.")}
    Export(source, tensors, config, CARD, llama.generation_config(sizes, eos)).write(folder, 4000)


def network(sizes: TransformerConfig, causal: bool = True) -> Transformer:
    """Random, and with norms that are not all ones."""
    torch.manual_seed(5)
    module = Transformer(sizes, causal=causal, mask_row=not causal).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return module


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@torch.no_grad()
def test_logits_are_the_same_in_transformers(sizes: TransformerConfig, tmp_path: Path) -> None:
    module = network(sizes)
    export(module, tmp_path / "out")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert not any(info.values()), info
    ids = torch.randint(0, sizes.padded_vocab, (3, 40), generator=torch.Generator().manual_seed(1))
    logits = module(ids)
    assert logits.std() > 0.1
    torch.testing.assert_close(theirs.eval()(ids).logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@torch.no_grad()
def test_a_bidirectional_network_is_llama_that_hides_nothing(sizes: TransformerConfig, tmp_path: Path) -> None:
    module = network(sizes, causal=False)
    export(module, tmp_path / "out")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    mask = theirs.config.mask_token_id
    assert (mask, theirs.config.text_vocab_size) == (sizes.padded_vocab, sizes.vocab_size)
    assert torch.equal(theirs.lm_head.weight[mask], torch.zeros(sizes.width))
    ids = torch.randint(0, mask + 1, (3, 40), generator=torch.Generator().manual_seed(1))
    logits = module(ids)
    found = theirs.eval()(ids, attention_mask=torch.zeros(3, 1, 40, 40)).logits
    torch.testing.assert_close(found[..., :mask], logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(theirs(ids).logits[..., :mask], logits, atol=1e-2)


@torch.no_grad()
def test_the_small_class_needs_no_mask_and_never_predicts_one(tmp_path: Path) -> None:
    from generative.hub.bidirectional import BidirectionalLlama

    sizes = SIZES["grouped, padded, another base and eps"]
    module = network(sizes, causal=False)
    export(module, tmp_path / "out")
    model = BidirectionalLlama.from_pretrained(tmp_path / "out").eval()
    ids = torch.randint(0, sizes.padded_vocab + 1, (2, 10), generator=torch.Generator().manual_seed(1))
    logits = module(ids)[..., : sizes.vocab_size]
    output = model(ids, labels=ids.clamp(max=20))
    torch.testing.assert_close(output.logits[..., : sizes.vocab_size], logits, rtol=1e-5, atol=1e-5)
    assert (output.logits[..., sizes.vocab_size :] == -torch.inf).all()
    nll = -logits.log_softmax(-1).gather(2, ids.clamp(max=20)[..., None]).mean()
    torch.testing.assert_close(output.loss, nll, rtol=1e-5, atol=1e-5)
    # Padding on the right is not seen.
    seen = torch.ones_like(ids)
    seen[:, 7:] = 0
    torch.testing.assert_close(model(ids, attention_mask=seen).logits[:, :7], model(ids[:, :7]).logits)
    model.save_pretrained(tmp_path / "again")
    again = BidirectionalLlama.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


@torch.no_grad()
def test_bf16_loads_as_bf16(tmp_path: Path) -> None:
    module = network(SIZES["plain"])
    export(module, tmp_path / "out", torch.bfloat16)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(theirs.lm_head.weight, module.head.weight.bfloat16())


@torch.no_grad()
def test_generate_continues_as_our_sampler_and_never_draws_padding(tmp_path: Path) -> None:
    sizes = SIZES["grouped, padded, another base and eps"]
    module = network(sizes)
    module.head.weight[sizes.vocab_size :] *= 30  # would win nearly always
    export(module, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    found = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False)
    sampler = AutoregressiveSampler(module, 25, sizes.vocab_size, temperature=0)
    ours = sampler({"sample_id": torch.tensor([0]), "prompt": prompt}, Streams(0))
    assert found.tolist() == ours.tolist()
    assert found.max() < sizes.vocab_size


def test_the_end_of_a_document_is_told(tmp_path: Path) -> None:
    export(network(SIZES["plain"]), tmp_path / "out", eos=7)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["eos_token_id"] == 7


def test_networks_that_are_no_llama_are_refused() -> None:
    sizes = SIZES["plain"]
    with torch.device("meta"):
        bidirectional = Transformer(sizes, causal=False, mask_row=False)
        masked = Transformer(sizes, causal=True, mask_row=True)
    for module, words in (
        (bidirectional, "bidirectional"),
        (masked, "causal transformer with a mask token"),
        (Net(), "a Net"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            llama.llama_sizes(module)
        assert "`generative` holds any network" in caught.value.remedy


def test_rounded_rotary_tables_are_told() -> None:
    assert llama.llama_notes(SIZES["plain"]) == []
    rounded = SIZES["plain"].model_copy(update={"rope_table_dtype": "bf16"})
    assert "bfloat16" in llama.llama_notes(rounded)[0]
