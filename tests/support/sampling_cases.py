"""A small network with sharp predictions in float64, and canvases of several kinds."""

from __future__ import annotations

import torch

from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.form import NetworkForm
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

T, VOCAB, MASK, EOS = 12, 20, 24, 3
CONFIG = TransformerConfig(layers=2, heads=2, width=16, ff_width=16, vocab_size=VOCAB, padding_multiple=8)


def sharp_net(config=CONFIG, causal=False):
    torch.manual_seed(0)
    net = Transformer(config, causal=causal, mask_row=not causal).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return net


def denoiser(net, block_size=None, shift=False, **options):
    return Denoiser(net, MASK, VOCAB, form=NetworkForm(block_size, shift), **options)


def canvases(count=16, kinds=3):
    """Continuations and infillings with `kinds` different places of masks."""
    canvas = torch.full((count, T), MASK)
    for i in range(count):
        kind = i % kinds
        canvas[i, : 2 * kind] = torch.arange(2 * kind) + i % 5
        canvas[i, T - kind :] = 7
    return canvas
