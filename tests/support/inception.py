"""Weights for the Inception network that need no download: noise from named streams, scaled so that signals survive."""

import math

import torch

from evaluation.images.inception import FidInception
from generative.randomness import Streams


def inception_state():
    streams, state = Streams(0).within("inception"), {}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in FidInception().state_dict().items()}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        noise = streams.normal(name, [0], shape)[0]
        if name.endswith("running_var"):
            state[name] = 1 + 0.3 * noise.tanh()
        elif name.endswith("bn.weight"):
            state[name] = 1 + 0.1 * noise
        elif name.endswith("conv.weight"):
            state[name] = noise * math.sqrt(2 / noise[0].numel())
        else:
            state[name] = 0.1 * noise
    return state


def golden_images():
    """uint8[2, 3, 24, 40]."""
    return Streams(0).integers("images", [0, 1], 256, (3, 24, 40)).to(torch.uint8)
