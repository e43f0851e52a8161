"""One rank: the allocation peak of a forward and backward pass of masked diffusion under a strategy; prints JSON."""

import json
import os
import sys
import warnings

import torch
import torch.distributed as dist

from generative.method import Context, DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.randomness import Streams
from tests.distributed.held_states import Held
from tests.support.allocations import allocation_peak

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "ERROR")
warnings.filterwarnings("ignore")

NETWORK = {"layers": 4, "heads": 4, "width": 128, "ff_width": 512, "max_length": 64}


def method() -> MaskedDiffusion:
    return MaskedDiffusion(MaskedDiffusionConfig(network=NETWORK), DataFacts(257, 64))


def batch(size: int = 8) -> dict:
    ids = torch.arange(size)
    tokens = torch.zeros(size, 65, dtype=torch.int64)
    return {"tokens": tokens, "sample_id": ids, "position": ids, "valid": torch.ones(size, dtype=torch.bool)}


class Pass(Held):
    """The network of masked diffusion in the hands of a strategy, and its loss as the trainer would call it."""

    def __init__(self, strategy: str, precision: str) -> None:
        self.lowered = precision == "bf16" and strategy.startswith("zero")
        self.autocast = precision == "bf16" and strategy == "ddp"
        build = method().networks()["net"].build
        # An allocation of the default size would count whole; on a CPU what is never written to takes no memory.
        bucket = sum(p.numel() for p in build().parameters())
        super().__init__(strategy, precision, "adamw", build, reduce_bucket_size=bucket)

    def network(self, *args):
        if self.lowered:
            args = [a.to(torch.bfloat16) if torch.is_tensor(a) and a.is_floating_point() else a for a in args]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            return self.call(*args)

    def once(self) -> None:
        (update,) = method().updates()
        context = Context(0, Streams(0).within(update.name), 8)
        loss = method().loss(update, {"net": self.network}, batch(), context).value
        self.call.backward(loss) if self.strategy.startswith("zero") else loss.backward()


def measure(strategy: str, precision: str) -> int:
    run = Pass(strategy, precision)
    for _ in range(2):
        run.once()
        run.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
        run.once()
    return allocation_peak(prof)


def main(arguments: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    print(json.dumps([measure(*case) for case in arguments["cases"]]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
