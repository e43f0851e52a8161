"""One rank of test_batch_norm_ranks.py: its share of a batch through a small network, gradients summed over ranks."""

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

from generative.nets.batch_norm import BatchNorm
from generative.nets.mlp_gan import MlpGenerator
from generative.nets.standing import standing_statistics
from generative.randomness import Streams
from generative.training.collectives import collectives

ROWS = 13


class Net(nn.Module):
    """Two norms with a convolution between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BatchNorm(3), BatchNorm(4)
        self.between = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(self, x, valid):
        return self.second(torch.tanh(self.between(self.first(x, valid))), valid)


def results(shares: list[int], rank: int) -> dict:
    """Output, gradients (of inputs, and summed of weights) and state of this rank; padded to the largest share."""
    draw = torch.Generator().manual_seed(3)
    net = Net().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    batch, weight = (torch.randn(ROWS, c, 4, 4, generator=draw, dtype=torch.float64) for c in (3, 4))
    first, mine = sum(shares[:rank]), shares[rank]
    x = torch.full((max(shares), 3, 4, 4), 50.0, dtype=torch.float64)
    x[:mine] = 2 + batch[first : first + mine]
    valid = torch.arange(max(shares)) < mine
    # A rank whose rows all count may leave the mask out.
    x.requires_grad_(True)
    y = net(x, valid if mine < max(shares) else None)
    loss = (y[:mine].square() * weight[first : first + mine]).sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + 0.1 * slope.square().sum()).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    if dist.is_initialized():
        for gradient in gradients.values():
            dist.all_reduce(gradient)
    return {
        "y": y[:mine].tolist(),
        "padding": float(x.grad[mine:].abs().sum()),
        "x": x.grad[:mine].tolist(),
        "gradients": {name: gradient.tolist() for name, gradient in gradients.items()},
        "state": {name: buffer.tolist() for name, buffer in net.named_buffers()},
    }


def standing() -> dict:
    """Statistics of a generator, over all ranks."""
    torch.manual_seed(1)
    net = MlpGenerator(4, (3,), widths=(6, 5))
    found = standing_statistics(net, lambda ids: Streams(2).normal("z", ids, (4,)), 40, 8, collectives())
    return {name: tensor.tolist() for name, tensor in found.items()}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    print(json.dumps({"cases": [results(shares, rank) for shares in arguments["shares"]], "standing": standing()}))
