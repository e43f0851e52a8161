"""What an operator is, and what all linear ones share: pseudo-inverses by conjugate gradients, and matrices.

Images are float[B, C, H, W] in [-1, 1]; noise is added in that range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from generative.errors import DataError

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Operator:
    """A measurement y = A(x).

    Args:
        name: as a user writes it.
        image: shape of one x, without the batch.
        measured: shape of one y.
        apply: A, on [B, *image]; differentiable.
        adjoint: A^T exactly, on [B, *measured]; None: A is not linear.
        pseudo_inverse: A^+ (least squares, least norm); None: there is none, or A is not linear.
        rough: a rough image of y where there is no pseudo-inverse; None: there is nothing to start from.
        greatest: no |A x| is above it for |x| <= 1; None: not told.
    """

    name: str
    image: tuple[int, ...]
    measured: tuple[int, ...]
    apply: Map
    adjoint: Map | None = None
    pseudo_inverse: Map | None = None
    rough: Map | None = None
    greatest: float | None = None

    @property
    def linear(self) -> bool:
        """Whether A is linear, that is has an adjoint."""
        return self.adjoint is not None

    @property
    def masks(self) -> bool:
        """Whether A = A^T = A^2: what A takes away was not measured, and y tells nothing there."""
        return self.adjoint is self.apply

    @cached_property
    def size(self) -> int:
        """m: numbers of one measurement; of masks those that are kept."""
        every = torch.ones(1, *self.image) if self.masks else torch.ones(self.measured)
        return int((self.apply(every) if self.masks else every).sum())

    def __call__(self, x: Tensor) -> Tensor:
        """A(x); raises DataError for images of another shape."""
        if tuple(x.shape[1:]) != self.image:
            raise DataError(
                f"images of shape {list(x.shape[1:])} for the operator {self.name}",
                f"{list(self.image)}, for which it was made",
                "make the operator for these images, or resize them",
            )
        return self.apply(x)

    def back(self, y: Tensor) -> Tensor | None:
        """An image that y could come from: A^+ y, or a rough one; None where neither is known."""
        way = self.pseudo_inverse or self.rough
        return None if way is None else way(y)


def as_like(values: Tensor, x: Tensor) -> Tensor:
    """`values` in the type and on the device of x."""
    return values.to(dtype=x.dtype, device=x.device)


def matrix_operator(matrix: Tensor, name: str = "matrix") -> Operator:
    """y = M x of vectors [B, d], with the pseudo-inverse by SVD; `matrix`: float64[m, d]."""
    inverse = torch.linalg.pinv(matrix)
    rows, columns = matrix.shape
    return Operator(
        name,
        (columns,),
        (rows,),
        apply=lambda x: x @ as_like(matrix, x).T,
        adjoint=lambda y: y @ as_like(matrix, y),
        pseudo_inverse=lambda y: y @ as_like(inverse, y).T,
    )


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of each row, [B]."""
    return (a * b).flatten(1).sum(1)


def expand(values: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B, 1, ...] to multiply x with."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


def conjugate_gradients(
    product: Map, target: Tensor, most: int, tolerance: float = 1e-12, floor: float = 0.0
) -> Tensor:
    """v with product(v) = target, where `product` is symmetric and positive; each row by itself.

    A row whose residual is below tolerance |target|, or whose direction p has a curvature p^T product(p) of at most
    floor |p|^2 (a network's Jacobian need be neither symmetric nor positive), stays as it is.

    Args:
        product: of each row by itself, [B, ...] -> [B, ...].
        target: [B, ...].
        most: number of steps at most; each calls `product` once.
        tolerance: of the residual's norm, relative to the target's.
        floor: what the least eigenvalue is known to be.
    """
    found, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), row_dot(residual, residual)
    goal = tolerance**2 * square
    going = square > goal
    for _ in range(most):
        if not bool(going.any()):
            break
        moved = product(direction)
        curvature = row_dot(direction, moved)
        going = going & (curvature > floor * row_dot(direction, direction))
        length = torch.where(going, square / curvature.masked_fill(~going, 1.0), torch.zeros_like(square))
        found = found + expand(length, found) * direction
        residual = residual - expand(length, residual) * moved
        after = row_dot(residual, residual)
        ratio = torch.where(going, after / square.masked_fill(~going, 1.0), torch.zeros_like(square))
        direction = torch.where(expand(going, direction), residual + expand(ratio, direction) * direction, direction)
        square = torch.where(going, after, square)
        going = going & (square > goal)
    return found


def with_iterative_inverse(operator: Operator, most: int = 100, damping: float = 1e-4) -> Operator:
    """The operator with A^+ y = A^T (A A^T + damping I)^-1 y by conjugate gradients, for one without a closed form."""
    adjoint = operator.adjoint
    assert adjoint is not None

    def inverse(y: Tensor) -> Tensor:
        return adjoint(conjugate_gradients(lambda v: operator.apply(adjoint(v)) + damping * v, y, most, 1e-6))

    return replace(operator, pseudo_inverse=inverse)


def side_of(image: Sequence[int], name: str, factor: int = 1) -> tuple[int, int, int]:
    """(C, H, W) of images whose sides `factor` divides.

    Raises:
        DataError: no images of channels, height and width, or sides that do not fit.
    """
    if len(image) != 3:
        raise DataError(f"{name} of data of shape {list(image)}", "images [C, H, W]", "take another operator")
    channels, height, width = image
    if height % factor or width % factor:
        raise DataError(
            f"{name} with factor {factor} of images of {height} x {width} pixels",
            f"sides that are multiples of {factor}",
            "give another factor, or crop the images",
        )
    return channels, height, width
