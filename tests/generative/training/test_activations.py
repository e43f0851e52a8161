"""Memory and arithmetic told by fake tensors against real passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from generative.method import Context, DataFacts, NetworkSpec
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.autoregressive.method import Autoregressive
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.nets.accounting import training_flops
from generative.nets.linear_cross_entropy import chunks_of
from generative.nets.transformer import Transformer
from generative.randomness import Streams
from generative.training.activations import FakeRun
from tests.support.allocations import allocation_peak
from tests.support.toys import Duel

NETWORK = {"layers": 2, "heads": 4, "width": 64, "ff_width": 192, "kv_groups": 2, "max_length": 96}
FACTS = DataFacts(257, 96)
METHODS = {
    "masked_diffusion": MaskedDiffusion(MaskedDiffusionConfig(network=NETWORK, random_length_ratio=0.5), FACTS),
    "autoregressive": Autoregressive(AutoregressiveConfig(network=NETWORK), FACTS),
}


def batch_of(size: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(size)
    tokens = torch.randint(0, 257, (size, 97), generator=torch.Generator().manual_seed(0))
    return {"tokens": tokens, "sample_id": ids, "position": ids, "valid": torch.ones(size, dtype=torch.bool)}


def real_peak(method: Any, batch: dict[str, torch.Tensor], bf16: bool, checkpointing: bool) -> int:
    (update,) = method.updates()
    net = method.networks()["net"].build()
    net.activation_checkpointing = checkpointing
    context = Context(0, Streams(0).within(update.name), len(batch["sample_id"]))

    def forward(*args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return net(*args, **kwargs)

    def once():
        method.loss(update, {"net": forward}, batch, context).value.backward()

    once()  # gradients are there from now on
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
        once()
    return allocation_peak(prof)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_activations_are_those_that_the_profiler_sees(name, bf16, checkpointing):
    method, batch = METHODS[name], batch_of(6)
    (told,) = FakeRun(method, "autocast" if bf16 else "fp32", checkpointing).activation_bytes(batch).values()
    assert told == pytest.approx(real_peak(method, batch, bf16, checkpointing), rel=0.05)  # 0.15 is promised


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing_and_bf16():
    method = METHODS["autoregressive"]
    told = {n: FakeRun(method).activation_bytes(batch_of(n))["next_token"] for n in (2, 4, 8)}
    assert told[8] - told[4] == pytest.approx(2 * (told[4] - told[2]), rel=0.01)
    assert FakeRun(method, checkpointing=True).activation_bytes(batch_of(8))["next_token"] < 0.7 * told[8]
    assert FakeRun(method, "bf16").activation_bytes(batch_of(8))["next_token"] < 0.7 * told[8]


def test_every_update_of_a_method_with_several_networks_is_told():
    batch = {**batch_of(4), "x": torch.randn(4, 3), "y": torch.randn(4)}
    told = FakeRun(Duel()).activation_bytes(batch)
    assert told.keys() == {"critic", "student"}
    assert all(size > 0 for size in told.values())


def test_a_planned_gpu_holds_larger_chunks_of_logits():
    """64 * 96 rows of 4096 logits in fp32: 101 MB at once there, 17 MB at a time here."""
    run = FakeRun(Autoregressive(AutoregressiveConfig(network=NETWORK), DataFacts(4096, 96)), checkpointing=True)
    here = run.activation_bytes(batch_of(64))["next_token"]
    with chunks_of("cuda"):
        assert run.activation_bytes(batch_of(64))["next_token"] > here + 50e6


def test_no_number_is_computed_and_no_memory_taken():
    huge = {**NETWORK, "width": 16384, "ff_width": 65536, "layers": 2}
    method = Autoregressive(AutoregressiveConfig(network=huge), FACTS)
    assert FakeRun(method).activation_bytes(batch_of(512))["next_token"] > 100e9


def counted_on_meta(net: Transformer, rows: int) -> int:
    """What FlopCounterMode sees in forward and backward of the network on the meta device, one sequence, plain head."""
    ids = torch.zeros(1, 96, dtype=torch.int64, device="meta")
    chosen = torch.zeros(rows, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(net(ids, chosen), chosen).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", METHODS)
def test_flops_are_those_of_the_counter_on_meta_tensors(name):
    method, batch = METHODS[name], batch_of(1)
    with torch.device("meta"):
        net = method.networks()["net"].build()
    masked = name == "masked_diffusion"
    rows = seen_rows(method, batch) if masked else 96
    counted = FakeRun(method).flops(batch)
    assert counted == counted_on_meta(net, rows)
    # The paper's convention agrees where attention is a whole square.
    assert counted == training_flops(method.network, 96, head_rows=rows, causal=False)


def seen_rows(method: MaskedDiffusion, batch: dict[str, torch.Tensor]) -> int:
    """Masked tokens of the batch."""
    seen = []

    def net(ids, rows, *rest):
        seen.append(len(rows))
        raise StopIteration

    with pytest.raises(StopIteration):
        method.loss(method.updates()[0], {"net": net}, batch, Context(0, Streams(0).within("denoise"), 1))
    return seen[0]


def test_checkpointing_counts_what_is_done_again():
    method = METHODS["autoregressive"]
    again = FakeRun(method, checkpointing=True).flops(batch_of(1)) / FakeRun(method).flops(batch_of(1))
    assert 1.2 < again < 4 / 3


def test_a_loss_that_reads_numbers_of_a_network_is_an_error():
    class Reading(Duel):
        def networks(self):
            return {"critic": NetworkSpec(lambda: torch.nn.Linear(3, 1))}

        def loss(self, update, nets, batch, context):
            return float(nets["critic"](batch["x"]).detach().sum())

    with pytest.raises(RuntimeError):
        FakeRun(Reading()).activation_bytes({**batch_of(4), "x": torch.randn(4, 3)})
