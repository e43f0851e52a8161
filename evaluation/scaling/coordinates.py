"""The coordinate check: whether activations of wide and narrow networks change alike in the first steps of training.

Under a rule that holds for all widths (muP, see `rules.mup_rates`) they do; else those of wide networks run away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.scaling.lines import fit_line
from generative.errors import DataError
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.training.config import OptimizerConfig
from generative.training.optimizers import build_optimizer

FLAT = 0.2
"""Largest slope, over width in log-log, of an activation that is told as flat."""


@dataclass(frozen=True)
class Coordinate:
    """How an activation depends on width.

    Args:
        name: of the layers.
        change: RMS of its change by training, for each width.
        slope: of log change over log width: 0 where all widths learn alike, 1/2 or 1 where wider ones run away.
    """

    name: str
    change: tuple[float, ...]
    slope: float

    @property
    def flat(self) -> bool:
        """Whether it keeps its size over the widths."""
        return abs(self.slope) <= FLAT


def coordinate_check(
    networks: Sequence[tuple[TransformerConfig, OptimizerConfig]],
    tokens: Tensor,
    *,
    causal: bool,
    steps: int = 4,
    progress: Callable[[int, int], None] = lambda done, whole: None,
) -> list[Coordinate]:
    """Train networks of several widths for a few steps on one batch, and compare how much their activations change.

    Args:
        networks: (sizes, optimizer) by width; all else should be the same. Rates are the optimizer's, at their full.
        tokens: int64[S, B, T], a batch for each of S seeds of the initial weights; changes are averaged over seeds.
        causal: whether the next token is predicted, or the half that is masked.
        steps: on the same batch.
        progress: told of networks that are done, and of all.

    Raises:
        DataError: fewer than two different widths.
    """
    widths = [sizes.width for sizes, _ in networks]
    if len(set(widths)) < 2:
        raise DataError(
            f"{len(set(widths))} widths show no slope",
            expected="two widths or more",
            remedy="compare networks of other widths",
        )
    found: dict[str, list[float]] = {}
    for place, (sizes, optimizer) in enumerate(networks):
        runs = [_changes(sizes, optimizer, batch, causal, steps, seed) for seed, batch in enumerate(tokens)]
        for name in runs[0]:
            found.setdefault(name, []).append(float(np.sqrt(np.mean([run[name] ** 2 for run in runs]))))
        progress(place + 1, len(networks))
    x = np.array(widths, dtype=np.float64)
    return [Coordinate(name, tuple(y), float(fit_line(x, np.array(y)).slope)) for name, y in found.items()]


def _changes(
    sizes: TransformerConfig, optimizer: OptimizerConfig, tokens: Tensor, causal: bool, steps: int, seed: int
) -> dict[str, float]:
    """RMS over batch, places and features of each activation's change by `steps` steps; blocks are averaged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Transformer(sizes, causal=causal, mask_row=not causal)
    ids, rows, targets = _task(tokens, causal, sizes.padded_vocab, seed)
    weights = torch.full(rows.shape, 1.0 / len(rows))
    stepping = build_optimizer(optimizer, net)
    before = _activations(net, ids)
    for _ in range(steps):
        stepping.zero_grad()
        net(ids, rows, targets, weights)[0].backward()
        stepping.step()
    after = _activations(net, ids)
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def _task(tokens: Tensor, causal: bool, mask: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids[B, T] that the network sees, rows[M] that are predicted, targets[M])."""
    B, T = tokens.shape
    if causal:
        rows = torch.arange(B * T).view(B, T)[:, :-1].flatten()
        return tokens, rows, tokens[:, 1:].flatten()
    hidden = torch.rand((B, T), generator=torch.Generator().manual_seed(seed)) < 0.5
    return tokens.masked_fill(hidden, mask), hidden.flatten().nonzero()[:, 0], tokens[hidden]


@torch.no_grad()
def _activations(net: Transformer, ids: Tensor) -> Mapping[str, Tensor]:
    """Outputs of embedding, attention and feed-forward (one entry for each block, stacked), and the logits."""
    seen: dict[str, list[Tensor]] = {}

    def keep(kind: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, output: seen.setdefault(kind, []).append(output.detach().clone())

    watched: dict[str, list[nn.Module]] = {"embedding": [net.embedding], "logits": [net.head]}
    for kind in ("attention", "feed_forward"):
        watched[kind] = [block.get_submodule(kind) for block in net.blocks]
    handles = [module.register_forward_hook(keep(kind)) for kind, modules in watched.items() for module in modules]
    try:
        net(ids)
    finally:
        for handle in handles:
            handle.remove()
    return {kind: torch.stack(outputs) for kind, outputs in seen.items()}
