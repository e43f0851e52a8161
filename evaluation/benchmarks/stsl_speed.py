"""What one call and one backward pass for an inner update of STSL save, against both terms computed apart.

Apart: e(z) and the data term backwards; e(z) again, e(z + h u), and the trace term backwards: three forwards and two
backwards. Fused: z and z + h u in one call, and one backward pass. The gain comes from small batches, where calls are
not limited by arithmetic; for large work it tends to 8 / 6 (rows forwards, and twice as much backwards).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evaluation.benchmarks.figure import Figure, figure
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import ratio_of_medians
from generative.methods.stsl.levels import Level, clean, linear_alphas
from generative.methods.stsl.operators.base import matrix_operator, row_dot
from generative.methods.stsl.prior import discrete_prior
from generative.methods.stsl.problem import Problem, StreamDraws, size_of
from generative.methods.stsl.sampler import update
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams

SIZE, WIDTH, BLOCKS = 64, 256, 4


class ResidualMlp(nn.Module):
    """e(z, t) of 64 numbers, as a prior of 8 x 8 digits is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(SIZE + 2, WIDTH), nn.Linear(WIDTH, SIZE)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )

    def forward(self, z: Tensor, times: Tensor) -> Tensor:
        """[B, 64]."""
        told = torch.stack([(times / 100).sin(), (times / 100).cos()], 1)
        hidden = self.first(torch.cat([z, told], 1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        found: Tensor = self.last(hidden)
        return found


class ConvNet(nn.Module):
    """e(z, t) of 8 x 8 pixels by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1)]
        for _ in range(BLOCKS):
            layers += [nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, z: Tensor, times: Tensor) -> Tensor:
        """[B, 64]."""
        del times
        found: Tensor = self.layers(z.reshape(-1, 1, 8, 8)).flatten(1)
        return found


def problem(net: nn.Module, batch: int) -> Problem:
    """Every fourth number of 64 is measured."""
    prior = discrete_prior(net.eval().requires_grad_(False), linear_alphas(), (SIZE,))
    operator = matrix_operator(torch.eye(SIZE, dtype=torch.float64)[::4])
    draws = StreamDraws(Streams(0), torch.arange(batch))
    return Problem(prior, operator, draws("y", 0, (SIZE // 4,)), 0.05, draws)


def apart(problem: Problem, z: Tensor, level: Level, terms: Terms, step: int) -> Tensor:
    """z - grad L, both terms by themselves, with the scaled probe."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        z0 = clean(z, problem.noise(z, level), level)
        data = terms.weight * size_of(problem.misfit(problem.decode(z0)), terms.data_loss)
        gradient = problem.gradient(data, z)
        u = problem.draws("probe", step, z.shape[1:]).to(z)
        moved = problem.noise(z + terms.probe_size * level.noise * u, level) - problem.noise(z, level)
        trace = -terms.eta / (terms.probe_size * z[0].numel()) * row_dot(u, moved)
        return z.detach() - gradient - problem.gradient(trace, z)


def run(quick: bool) -> dict[str, Figure]:
    """`fused_speedup` (batch 1, residual MLP), and the same for other networks and batches."""
    told: dict[str, Figure] = {}
    kinds: tuple[tuple[str, Callable[[], nn.Module], int], ...] = (
        ("fused_speedup", ResidualMlp, 1),
        ("fused_speedup_mlp_64", ResidualMlp, 64),
        ("fused_speedup_conv_1", ConvNet, 1),
        ("fused_speedup_conv_16", ConvNet, 16),
    )
    for key, make, batch in kinds:
        torch.manual_seed(0)
        asked, terms = problem(make(), batch), Terms(weight=0.3, eta=3.0)
        z, level = asked.draws("z", 0, (SIZE,)), asked.prior.levels(50)[25]

        def slow(asked: Problem = asked, z: Tensor = z, level: Level = level, terms: Terms = terms) -> Tensor:
            return apart(asked, z, level, terms, 0)

        def fast(asked: Problem = asked, z: Tensor = z, level: Level = level, terms: Terms = terms) -> Tensor:
            return update(asked, z, level, terms, 0)[0]

        with one_thread():
            first, second = interleave(slow, fast, pairs=10 if quick else 300, warmup=3 if quick else 20)
        note = f"three forwards and two backwards over one of each, {make.__name__}, batch {batch}, one thread"
        told[key] = figure(ratio_of_medians(first, second), ">= 1.4" if key == "fused_speedup" else None, note)
    return told
