"""Published constants against the tables that hold them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.scaling.forms import PF_DAY
from evaluation.scaling.henighan import HENIGHAN, HENIGHAN_IMAGES, size_bound_by_data
from evaluation.scaling.published import (
    BESIROGLU,
    BESIROGLU_INTERVALS,
    HOFFMANN,
    HOFFMANN_EXPONENTS,
    HOFFMANN_LOG,
    HOFFMANN_TABLE_A3,
    KAPLAN,
    PORIAN_EXPONENTS,
    SMDM_LINES,
    Source,
)
from tests.support.scaling import facts


def test_constants_of_kaplan():
    known = facts("published_constants.json")["kaplan2020"]
    for name in ("L_N", "L_D", "L_Cmin", "L_C_naive", "L_ND", "L_NS", "B_crit"):
        assert dict(KAPLAN[name].values) == known[name], name
    assert KAPLAN["N_opt"].values["exponent"] == known["N_opt_exponent"]
    assert KAPLAN["batch"].values["exponent"] == known["B_exponent"]
    assert KAPLAN["steps"].values["exponent"] == known["S_exponent"]


def test_what_was_not_seen_is_marked():
    assert {name for name, one in KAPLAN.items() if one.source.seen == "unverified"} == {"L_NS", "B_crit"}
    assert "UNVERIFIED" in str(KAPLAN["L_NS"].source)
    assert str(Source("X", "paper")) == "X"
    assert {one.intervals_seen for one in HOFFMANN_EXPONENTS.values() if one.a_interval} == {"unverified"}


def test_constants_of_hoffmann():
    known = facts("published_constants.json")["hoffmann2022"]
    assert {name: getattr(HOFFMANN, name) for name in ("E", "A", "B", "alpha", "beta")} == known["fit"]
    for key, name in (("approach1", "approach 1"), ("approach2", "approach 2"), ("approach3", "approach 3")):
        one = next(value for label, value in HOFFMANN_EXPONENTS.items() if label.startswith(name))
        assert (one.a, one.b) == (known[key]["a"], known[key]["b"])
        assert (list(one.a_interval or ()), list(one.b_interval or ())) == (known[key]["a_ci80"], known[key]["b_ci80"])
    assert HOFFMANN_EXPONENTS["GitHub IsoFLOP"].a == known["github_isoflop"]["a"]


def test_published_refit():
    known = facts("chinchilla_epoch_fits.json")
    assert list(HOFFMANN_LOG) == known["hoffmann_unrounded"]["log_params"]
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(BESIROGLU, name) == known["published_besiroglu"][name]
        assert BESIROGLU_INTERVALS[name] == pytest.approx(known["published_besiroglu"]["ci95"][name], rel=1e-3)


def test_rounded_parameters_are_the_unrounded_ones():
    a, b, e, alpha, beta = HOFFMANN_LOG
    assert (HOFFMANN.alpha, HOFFMANN.beta) == (round(alpha, 2), round(beta, 2))
    assert math.exp(a) == pytest.approx(HOFFMANN.A, abs=0.1)
    assert math.exp(b) == pytest.approx(HOFFMANN.B, abs=0.1)
    assert round(math.exp(e), 2) == pytest.approx(1.69)


def test_optimal_sizes_of_approach_2_follow_c_6nd_and_its_exponent():
    N, C, D = np.array(HOFFMANN_TABLE_A3).T
    np.testing.assert_allclose(6 * N * D / C, 1, rtol=0.02)
    assert np.polyfit(np.log(C), np.log(N), 1)[0] == pytest.approx(0.49, abs=0.005)


def test_laws_of_henighan():
    known = facts("henighan_table1.json")
    assert [one.name for one in HENIGHAN] == [row["domain"] for row in known["rows"]]
    for one, row in zip(HENIGHAN, known["rows"], strict=True):
        for sample in row["samples"]:
            assert one.L_N(sample["N"]) == pytest.approx(sample["L"], rel=1e-9)
        assert (one.L_C is None) == (row["L_C"] is None)
        for sample in row.get("samples_C", []):
            C = sample["C_pfdays"] * PF_DAY
            assert one.L_C is not None
            assert one.L_C(C) == pytest.approx(sample["L"], rel=1e-9)
            assert one.optimum(C) == pytest.approx((sample["N_opt"], sample["tokens"]), rel=1e-9)
    for image, row in zip(HENIGHAN_IMAGES, known["table3_per_image"], strict=True):
        assert (image.name, image.C0, image.exponent, image.floor) == (
            row["res"],
            row["C0"],
            -row["exp"],
            row["irreducible_nats"],
        )


def test_floors_of_images_agree_between_the_two_tables():
    """Nats an image = nats a token x 3 R^2 tokens."""
    by_name = {one.name: one for one in HENIGHAN}
    for image, side in (("8x8", 8), ("16x16", 16), ("32x32", 32)):
        floor = next(one.floor for one in HENIGHAN_IMAGES if one.name == image)
        assert by_name[f"Image {image}"].compute[0] * 3 * side**2 == pytest.approx(floor, rel=0.005)
    N, D = size_bound_by_data(PF_DAY)
    assert pytest.approx(2.8e8) == N
    assert pytest.approx(1.0) == 5e-42 * D**3.9


def test_lines_of_smdm_are_those_of_its_optima():
    known = facts("smdm_fits.json")["exponents"]
    for name, key in (
        ("loss of masked diffusion", "loss_mdm"),
        ("loss of autoregressive", "loss_arm"),
        ("N_opt of masked diffusion", "N_mdm"),
        ("N_opt of autoregressive", "N_arm"),
    ):
        assert SMDM_LINES[name].slope == pytest.approx(known[key]["slope"], abs=5e-4)
        assert SMDM_LINES[name].intercept == pytest.approx(known[key]["intercept"], abs=1e-3)


def test_exponents_of_porian():
    by_step = {"Kaplan's setup": 0, "head counted": 1, "warm-up in proportion to size": 2}
    fits = facts("porian_isoflop_rw.json")["fits"]
    for step, index in by_step.items():
        assert PORIAN_EXPONENTS[step].a == pytest.approx(fits[index]["a"], abs=1e-3)
        assert PORIAN_EXPONENTS[step].a_interval == pytest.approx(fits[index]["a_ci95"], abs=1e-3)
