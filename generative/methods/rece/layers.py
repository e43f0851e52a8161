"""The edit layer by layer, for what no shared transform can express: the technique `tensor`, a choice of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generative.methods.rece.closed_form import cross_gram, edit_directions, gram
from generative.methods.rece.config import StepConfig
from generative.methods.rece.tokens import Pairs, joined


@dataclass(frozen=True)
class Layers:
    """Matrices by name, in float64.

    Args:
        original: W^orig of the untouched model, [o, d] each; all of them count in derivations.
        current: the same after some edits.
        edited_names: those that edits change; None: all.
    """

    original: Mapping[str, Tensor]
    current: Mapping[str, Tensor]
    edited_names: frozenset[str] | None = None

    @staticmethod
    def of(weights: Mapping[str, Tensor], edited_names: frozenset[str] | None = None) -> Layers:
        """Untouched."""
        wide = {name: weight.double() for name, weight in weights.items()}
        return Layers(wide, wide, edited_names)

    def normal(self) -> tuple[Tensor, Tensor]:
        """Sums of W^T W and W^T W^orig."""
        width = next(iter(self.current.values())).shape[1]
        now = list(self.current.values())
        return gram(now, width), cross_gram(now, [self.original[name] for name in self.current], width)

    def mean_diagonal(self) -> float:
        """tr(G) / d of the original weights."""
        width = next(iter(self.original.values())).shape[1]
        return sum(float(weight.square().sum()) for weight in self.original.values()) / width

    def edited(self, pairs: Sequence[Pairs], kept: Tensor, step: StepConfig) -> Layers:
        """W + sum over pairs (V* - W C^T) Q^T, with Q the same for all layers."""
        directions = edit_directions(joined(pairs), kept, step.lamb, step.erase_scale)

        def changed(weight: Tensor) -> Tensor:
            steps = torch.cat([_targets(weight, one, step.technique) - one.old @ weight.T for one in pairs])
            return torch.addmm(weight, steps.T, directions.T)

        names = self.edited_names or self.current.keys()
        found = {name: changed(w) if name in names else w for name, w in self.current.items()}
        return replace(self, current=found)


def _targets(weight: Tensor, pairs: Pairs, technique: str) -> Tensor:
    """V*, float64[n, o]: outputs for the guide; `tensor` takes out its part along the concept's, all tokens as one."""
    wanted = pairs.new @ weight.T
    if technique == "replace":
        return wanted
    along = pairs.old @ weight.T
    along = along / along.norm()
    found: Tensor = wanted - (along * wanted).sum() * along
    return found


def recover_transform(original: Mapping[str, Tensor], edited: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """T of somebody's edit by least squares over all matrices, and its residual.

    Args:
        original: W of the base model, [o, d].
        edited: the same matrices after the edit.

    Returns:
        T float64[d, d], and |W T - W_edited|_F / |W_edited - W|_F: not small where the edit was none of W T.
    """
    names = sorted(edited)
    width = edited[names[0]].shape[1]
    base = [original[name] for name in names]
    total = gram(base, width)
    ridge = torch.finfo(torch.float64).eps * float(total.diagonal().sum())
    change = [edited[name].double() - original[name].double() for name in names]
    right = cross_gram(base, change, width)
    found = torch.linalg.solve(total + ridge * torch.eye(width, dtype=torch.float64), right)
    missed = sum(float((w.double() @ found - d).square().sum()) for w, d in zip(base, change, strict=True))
    whole = sum(float(d.square().sum()) for d in change)
    return torch.eye(width, dtype=torch.float64) + found, (missed / whole) ** 0.5 if whole else 0.0
