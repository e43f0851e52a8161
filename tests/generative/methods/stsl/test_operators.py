"""T1: operators against golden arrays; adjoints and pseudo-inverses by what they are; noise; names; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from generative.errors import ConfigError, DataError, GenerativeError
from generative.methods.stsl.operators.base import conjugate_gradients, matrix_operator
from generative.methods.stsl.operators.catalogue import OPERATORS, make_operator
from generative.methods.stsl.operators.convolution import kernel_blur
from generative.methods.stsl.operators.cosine import quantisation
from generative.methods.stsl.operators.kernels import gaussian_line, motion_kernel, motion_path
from generative.methods.stsl.operators.masks import masked
from generative.methods.stsl.operators.noise import deviation, with_noise
from generative.methods.stsl.operators.separable import bicubic_matrix
from generative.randomness import Streams
from tests.generative.methods.stsl.golden import arrays

IMAGES = "operators_astronaut_48_s0"
SHAPE = (3, 48, 48)
NAMED = {
    "gaussian_blur_61_3": "gaussian_blur",
    "sr_bicubic_x4": "superres:factor=4,kernel=bicubic",
    "sr_bicubic_x8": "superres:factor=8,kernel=bicubic",
    "sr_avgpool_x4": "superres:factor=4",
    "sr_avgpool_x8": "superres:factor=8",
    "sr_antialias_interp_x4": "superres:factor=4,kernel=antialias",
    "sr_antialias_interp_x8": "superres:factor=8,kernel=antialias",
    "phase_retrieval_dps_range": "phase_retrieval:range=signed",
    "phase_retrieval_daps_range": "phase_retrieval",
    "hdr_scale2": "hdr",
}
SMALL = {
    "superres": "superres:factor=2",
    "bicubic": "superres:factor=2,kernel=bicubic",
    "antialias": "superres:factor=4,kernel=antialias",
    "gaussian_blur": "gaussian_blur:size=7,std=1",
    "motion_blur": "motion_blur:size=9",
    "inpaint": "inpaint",
    "box": "box:size=4,margin=2",
    "free_form": "free_form",
    "compressed_sensing": "compressed_sensing",
}
"""Linear operators of small images."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", sorted(NAMED))
def test_golden_measurements_and_adjoints(case) -> None:
    told = arrays(IMAGES)
    operator = make_operator(NAMED[case], SHAPE)
    y = operator(told["x"])
    close(y, told[f"{case}.y"])
    assert tuple(y.shape[1:]) == operator.measured
    if f"{case}.u" in told:
        close(operator.adjoint(told[f"{case}.u"]), told[f"{case}.At_u"])


def test_golden_motion_blur() -> None:
    told = arrays(IMAGES)
    operator = kernel_blur(SHAPE, told["motion_kernel_61_0.5"], "motion")
    close(operator(told["x"]), told["motion_blur_61_0.5.y"])
    close(operator.adjoint(told["motion_blur_61_0.5.u"]), told["motion_blur_61_0.5.At_u"])


def test_golden_matrices_and_kernels() -> None:
    told = arrays(IMAGES)
    for factor in (4, 8):
        close(bicubic_matrix(48, factor).float(), told[f"sr_bicubic_x{factor}.W1d"])
    line = gaussian_line(61, 3.0)
    torch.testing.assert_close(torch.outer(line, line), told["gaussian_kernel_61_3"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("text", sorted(SMALL.values()))
def test_adjoints_and_pseudo_inverses(text) -> None:
    """<A x, u> = <x, A^T u>; A A^+ A = A (blurs: but for what they have all but lost)."""
    operator = make_operator(text, (2, 16, 24))
    x, u = random(3, 2, 16, 24), random(3, *operator.measured, seed=1)
    torch.testing.assert_close((operator(x) * u).sum(), (x * operator.adjoint(u)).sum(), rtol=1e-10, atol=1e-10)
    found = operator(operator.pseudo_inverse(operator(x)))
    loose = {"gaussian_blur": 2e-3, "motion_blur": 2e-2}.get(text.split(":")[0], 1e-9)
    assert (found - operator(x)).norm() <= loose * operator(x).norm()


@pytest.mark.parametrize("text", ["compressed_sensing:keep=0.3", "inpaint", "free_form", "box:size=4,margin=2"])
def test_rows_that_are_orthonormal(text) -> None:
    """A A^T A = A: what is measured comes back as it is."""
    operator = make_operator(text, (2, 16, 16))
    y = operator(random(1, 2, 16, 16))
    torch.testing.assert_close(operator(operator.adjoint(y)), y)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_matrices_have_their_pseudo_inverse(rows, columns, seed) -> None:
    operator = matrix_operator(random(rows, columns, seed=seed))
    x = random(2, columns, seed=seed + 1)
    torch.testing.assert_close(operator(operator.pseudo_inverse(operator(x))), operator(x))


def test_conjugate_gradients_solve_each_row_by_itself() -> None:
    root = random(2, 5, 5)
    matrices = root @ root.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    target = random(2, 5, seed=1) * torch.tensor([[1.0], [1e-6]], dtype=torch.float64)
    found = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", matrices, v), target, 20)
    torch.testing.assert_close(found, torch.linalg.solve(matrices, target), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.7, 0.92])
def test_random_masks_drop_exactly_so_many_pixels(missing) -> None:
    ones = torch.ones(1, 3, 20, 30)
    kept = make_operator(f"inpaint:missing={missing}", (3, 20, 30))(ones)
    assert kept[0, 0].sum() == 600 - int(600 * missing)
    assert torch.equal(kept[0, 0], kept[0, 2])
    other = make_operator(f"inpaint:missing={missing},seed=1", (3, 20, 30))(ones)
    assert torch.equal(kept, other) == (missing == 0.0)


@given(seed=st.integers(0, 30))
@settings(max_examples=15, deadline=None)
def test_boxes_and_strokes(seed) -> None:
    ones = torch.ones(1, 1, 40, 40)
    hole = 1 - make_operator(f"box:size=9,margin=3,seed={seed}", (1, 40, 40))(ones)[0, 0]
    rows, columns = torch.nonzero(hole, as_tuple=True)
    assert hole.sum() == 81
    assert min(rows.min(), columns.min()) >= 3
    assert max(rows.max(), columns.max()) < 37
    share = 1 - make_operator(f"free_form:seed={seed}", (1, 40, 40))(ones).mean()
    assert 0.1 <= share <= 0.26


def test_motion_kernels_are_paths() -> None:
    for seed in range(5):
        kernel = motion_kernel(31, 0.5, seed)
        assert kernel.shape == (31, 31)
        assert kernel.min() >= 0
        torch.testing.assert_close(kernel.sum(), torch.tensor(1.0, dtype=torch.float64))
        # a thin line: few pixels hold it all
        assert 3 <= int((kernel > 0).sum()) < 31 * 8
    assert not torch.equal(motion_kernel(31, 0.5, 0), motion_kernel(31, 0.5, 1))


def test_a_motion_of_low_intensity_is_nearly_straight() -> None:
    """All moves lie within max + 0.1 <= intensity pi + 0.1 of one axis: angles are not added up along the path."""
    for seed in range(20):
        path = motion_path(0.1, 200, np.random.default_rng(seed))
        moves = np.diff(path)
        axis = moves.sum() / abs(moves.sum())
        assert np.abs(np.angle(moves / axis)).max() <= 2 * (0.1 * np.pi + 0.1)
        assert abs(moves.sum()) >= 0.9 * np.abs(moves).sum()


def test_jpeg_rounds_and_lets_gradients_through() -> None:
    assert quantisation(50)[0, 0] == 16
    assert quantisation(10)[0].tolist() == [80, 55, 50, 80, 120, 200, 255, 255]
    assert quantisation(100).max() == 1
    x = random(2, 3, 16, 24).clamp(-1, 1).requires_grad_()
    errors = [(make_operator(f"jpeg:quality={q}", (3, 16, 24))(x) - x).square().mean().sqrt() for q in (100, 50, 5)]
    assert errors[0] < 0.005 < errors[0] * 20 < errors[1] * 20 < errors[2] * 20
    y = make_operator("jpeg:quality=5", (3, 16, 24))(x)
    (gradient,) = torch.autograd.grad((y * 2).sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 2))
    torch.testing.assert_close(make_operator("jpeg:quality=5", (3, 16, 24))(y), y, atol=1e-9, rtol=0)


def test_flat_grey_has_one_coefficient() -> None:
    y = make_operator("jpeg:quality=50", (1, 8, 8))(torch.full((1, 1, 8, 8), 0.2, dtype=torch.float64))
    wanted = 255 * 1.2 / 2 - 128
    torch.testing.assert_close((y + 1) * 255 / 2 - 128, torch.full_like(y, round(wanted * 8 / 16) * 2.0))


def test_noise() -> None:
    streams, ids = Streams(1), torch.arange(4)
    y = torch.zeros(4, 3, 40, 40)
    gaussian = with_noise(y, "gaussian", 0.05, ids, streams)
    assert 0.048 < gaussian.std() < 0.052
    torch.testing.assert_close(with_noise(y[2:], "gaussian", 0.05, ids[2:], streams), gaussian[2:])
    poisson = with_noise(y, "poisson", 1.0, ids, streams)
    # u = 1/2: variance of the count over 255 is u / 255, twice that range
    assert abs(float(poisson.std()) - 2 * (0.5 / 255) ** 0.5) < 0.003
    torch.testing.assert_close(with_noise(y[1:2], "poisson", 1.0, ids[1:2], streams), poisson[1:2])
    assert deviation("gaussian", 0.3) == 0.3
    assert abs(float(poisson.std()) - deviation("poisson", 1.0)) < 0.003
    pepper = with_noise(y, "salt_pepper", 0.02, ids, streams)
    assert 0.015 < float((pepper != 0).float().mean()) < 0.025
    assert set(pepper.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert abs(float(pepper.std()) - deviation("salt_pepper", 0.02)) < 0.015
    with pytest.raises(ConfigError, match="Did you mean poisson"):
        deviation("poison", 1.0)
    with pytest.raises(ConfigError, match="poisson noise of 0"):
        deviation("poisson", 0.0)


def test_starting_points() -> None:
    x = random(1, 1, 16, 16).clamp(-0.4, 0.4)
    assert make_operator("phase_retrieval", (1, 16, 16)).back(torch.zeros(1, 1, 24, 24)) is None
    hdr = make_operator("hdr", (1, 16, 16))
    torch.testing.assert_close(hdr.back(hdr(x)), x)
    assert not hdr.linear
    assert make_operator("superres:factor=2", (1, 16, 16)).linear


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("superes:factor=4", "Did you mean superres?"),
        ("superres:faktor=4", "Did you mean factor?"),
        ("superres:factor=two", "a whole number"),
        ("superres:factor", "parameter=value"),
        ("superres:factor=2,factor=4", "given twice"),
        ("superres:kernel=bicubik", "Did you mean bicubic?"),
        ("superres:factor=0", "1 or more"),
        ("superres:factor=5", "multiples of 5"),
        ("gaussian_blur:size=4", "an odd size"),
        ("gaussian_blur:size=61", "a smaller kernel"),
        ("motion_blur:intensity=2", "intensity in"),
        ("inpaint:missing=1", "a share in [0, 1)"),
        ("box", "give a smaller size"),
        ("free_form:low=0.5", "0 < low <= high"),
        ("compressed_sensing:keep=0", "a share in (0, 1]"),
        ("jpeg:quality=0", "1 to 100"),
        ("hdr:scale=0.5", "1 or more"),
        ("phase_retrieval:oversample=0.1", "one pixel or more"),
        ("phase_retrieval:oversample=nan", "a number"),
        ("phase_retrieval:oversample=inf", "a number"),
        ("compressed_sensing:keep=nan", "a number"),
        ("compressed_sensing:keep=-inf", "a number"),
        ("hdr:scale=nan", "a number"),
        ("gaussian_blur:size=3,std=1e12", "std in (0, size]"),
    ],
)
def test_mistakes_are_told(text, said) -> None:
    with pytest.raises(GenerativeError) as error:
        make_operator(text, (1, 16, 16))
    assert said in str(error.value)


def test_images_of_another_shape_and_empty_masks() -> None:
    with pytest.raises(DataError, match="for which it was made"):
        make_operator("inpaint", (1, 8, 8))(torch.zeros(1, 3, 8, 8))
    with pytest.raises(DataError, match="images \\[C, H, W\\]"):
        make_operator("inpaint", (8,))
    with pytest.raises(DataError, match="keeps no pixel"):
        masked((1, 4, 4), torch.zeros(4, 4), "mask")
    with pytest.raises(ConfigError, match="noise of 0"):
        with_noise(torch.zeros(1, 2), "gaussian", 0.0, torch.zeros(1, dtype=torch.int64), Streams(0))


def test_every_operator_has_a_test() -> None:
    tried = {text.split(":")[0] for text in (*NAMED.values(), *SMALL.values())} | {"jpeg"}
    assert tried == set(OPERATORS)
