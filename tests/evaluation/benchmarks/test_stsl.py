"""T11 on small numbers, and that the parts of the benchmark of posterior samplers measure what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks import posterior_samplers, stsl_digits, stsl_exact, stsl_latent, stsl_speed
from evaluation.benchmarks.kept import FOLDER
from evaluation.benchmarks.posterior_samplers import Judged, entries, rows_ratio
from evaluation.benchmarks.stsl_digits import QUICK
from evaluation.benchmarks.stsl_exact import Size, cases, compare, contenders, floor, sliced_w2
from generative.data.image_config import FolderImageConfig
from generative.data.images import open_images
from generative.methods.stsl.levels import linear_alphas
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.sampler import update
from generative.methods.stsl.surrogate import Terms
from tests.generative.methods.stsl.golden import Toy
from tests.support.judges import blind_extractor


def test_problems_are_those_recorded() -> None:
    for case in cases(("gauss4", "gmm2", "ring2", "gmm8")):
        toy = Toy(case.name, 100)
        for a, b in (
            (case.mixture.weights, toy.mixture.weights),
            (case.mixture.means, toy.mixture.means),
            (case.mixture.covariances, toy.mixture.covariances),
            (case.matrix, toy.matrix),
        ):
            assert torch.equal(a, b)
        assert case.sigma == toy.sigma


def test_posteriors_are_those_of_sampling() -> None:
    """Mean and covariance of the closed form against weighted samples of the prior."""
    (case,) = cases(("gmm2",))
    y = case.measurements(1)[0]
    points = case.mixture.sample(400_000, torch.Generator().manual_seed(0))
    weights = (-(y - points @ case.matrix.T).square().sum(1) / (2 * case.sigma**2)).softmax(0)
    posterior = case.mixture.posterior(case.matrix, y, case.sigma)
    mean = weights @ points
    torch.testing.assert_close(mean, posterior.mean, atol=0.02, rtol=0)
    apart = points - mean
    torch.testing.assert_close((weights[:, None] * apart).T @ apart, posterior.covariance, atol=0.03, rtol=0.03)


def test_sliced_distance() -> None:
    a = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert sliced_w2(a, a[torch.randperm(200)]) < 1e-12
    shift = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    # the mean square of a direction's first part is 1/3
    assert abs(sliced_w2(a, a + shift) - math.sqrt(3)) < 0.35


@pytest.mark.parametrize("name", ["gauss4", "gmm2"])
def test_dps_stays_as_far_as_it_is(name) -> None:
    """T11: between 0.12 and 0.25 at its best weight (here 0.03 more or less, of few chains): farther is a fault."""
    (case,) = cases((name,))
    size = Size((name,), 2, 200)
    contender = contenders(case, size)["dps"]
    found, _ = compare(case, size, replace(contender, weights=contender.weights[1:4]))
    assert 0.09 <= sum(one.distance for one in found) / 2 <= 0.28


@pytest.mark.parametrize("name", ["gauss4", "gmm2"])
def test_guidance_reaches_the_exact_posterior(name) -> None:
    """T11: exact within 1.3 floor + 0.03, covariance-aware within 0.14 (here of 300 chains of one measurement)."""
    size = replace(Size((name,), 1, 300), steps=50)
    (case,) = cases((name,))
    distances = floor(case, replace(size, measurements=6))
    least = sum(distances) / len(distances)
    known = {key: replace(one, sets=1) for key, one in contenders(case, size).items()}
    found, _ = compare(case, size, known["exact"])
    assert found[0].distance <= 1.3 * least + 0.03 + 0.03
    assert 0.7 < found[0].variance_ratio < 1.3
    found, _ = compare(case, size, known["mmps"])
    assert found[0].distance <= 0.14 + 0.03


def test_more_measurements_begin_with_the_same_ones() -> None:
    (case,) = cases(("gmm2",))
    many = case.measurements(6, 4)
    assert many.shape[0] == 24
    assert torch.equal(many[:6], case.measurements(6))
    assert len(many.unique(dim=0)) == 24


def test_tuning_takes_the_best_weight() -> None:
    (case,) = cases(("gauss4",))
    size = Size(("gauss4",), 1, 50, 10, 2)
    contender = contenders(case, size)["dps"]
    found, weight = compare(case, size, contender)
    alone = {w: compare(case, size, replace(contender, weights=(w,)))[0][0].distance for w in contender.weights}
    assert found[0].distance == min(alone.values())
    assert alone[weight] == found[0].distance


def test_both_updates_of_the_timing_are_one() -> None:
    for make in (stsl_speed.ResidualMlp, stsl_speed.ConvNet):
        torch.manual_seed(0)
        asked = stsl_speed.problem(make(), 3)
        level, terms = asked.prior.levels(50)[25], Terms(weight=0.3, eta=3.0)
        z = asked.draws("z", 0, (64,))
        apart = stsl_speed.apart(asked, z, level, terms, 0)
        assert (asked.cost.rows, asked.cost.vjps) == (9, 6)
        fused = update(asked, z, level, terms, 0)[0]
        assert (asked.cost.rows, asked.cost.vjps) == (15, 9)
        torch.testing.assert_close(fused, apart, rtol=1e-4, atol=1e-5)


def test_every_entry_has_equal_trials_and_its_rows() -> None:
    known = entries(posterior_samplers.Size())
    untuned = known.pop("stsl_default")
    assert [untuned.at(weight) for weight in untuned.weights] == [METHODS["stsl"].settings]
    assert not untuned.ours
    assert {len(entry.weights) for entry in known.values()} == {3}
    for name, entry in known.items():
        assert entry.method in METHODS
        assert entry.at(entry.weights[0]) != entry.at(entry.weights[1]), name
        if entry.method in ("stsl", "first_order"):
            settings = entry.at(0.1)
            rows = settings.steps * (settings.inner * (2 if settings.terms.eta else 1) + 1)
            assert name.endswith(str(rows)), (name, rows)
    assert (known["ldps"].at(0.3).gamma, known["psld"].at(0.3).gamma) == (0.0, pytest.approx(0.03))
    # every sampler that is offered is compared, but for other settings of one that is
    assert {entry.method for entry in known.values()} == METHODS.keys() - {"gml_dps", "stsl_paper"}


def judged(accuracy: float, distance: float, rows: float, count: int = 4) -> Judged:
    one = torch.ones(count, dtype=torch.float64)
    cost = {"rows": rows, "vjps": 1.0, "decoder_vjps": 0.0}
    return Judged(one, one, accuracy * one, distance * one, one, one, one, cost)


def test_the_ratio_of_rows_and_when_there_is_none() -> None:
    known = entries(posterior_samplers.Size())
    found = {"psld": judged(0.9, 1.0, 1000), "stsl_225": judged(0.895, 1.01, 225), "stsl_550": judged(0.95, 0.9, 550)}
    assert rows_ratio(found, known, "psld")["value"] == pytest.approx(0.225)
    found["p2l_style"] = judged(0.95, 0.9, 1000)
    against = rows_ratio(found, known, "p2l_style")
    # the definition asks for 300 images: with fewer there is nothing to be reached
    assert (against["value"], against["goal"]) == (pytest.approx(0.55), None)
    found["p2l_style"] = judged(0.95, 0.9, 1000, 300)
    assert rows_ratio(found, known, "p2l_style")["goal"] == "<= 0.125"
    found = {"psld": judged(0.9, 1.0, 1000), "stsl_225": judged(0.88, 0.9, 225), "mmps": judged(1.0, 0.1, 50)}
    assert math.isnan(rows_ratio(found, known, "psld")["value"])


def test_figures_tell_what_they_were_measured_with() -> None:
    size = posterior_samplers.Size()
    found = {name: replace(judged(0.9, 1.0, 550), weight=0.3, lost=2) for name in entries(size)}
    told = posterior_samplers.figures(found, "blur", size)
    note = told["blur_coverage_psld"]["protocol"]
    assert "weight 0.3 of 3 trials on 97 images; 3 seeds; 2 of all were not finite" in note
    assert "3 samples of the true posterior would cover about 0.45" in note
    assert "of 1 trials" in told["blur_psnr_stsl_default"]["protocol"]


def test_what_is_kept_is_not_measured_again(tmp_path, monkeypatch) -> None:
    """An interrupted comparison goes on with what its folder has not, to the same figures."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(posterior_samplers, "available_cores", lambda: 1)
    monkeypatch.setattr(stsl_digits, "judge", lambda folder: blind_extractor())
    names = ("psld", "ldps", "p2l_style", "first_order_550", "stsl_550", "stsl_125")
    small = {name: replace(entry, settings=replace(entry.settings, steps=2)) for name, entry in entries(QUICK).items()}
    monkeypatch.setattr(posterior_samplers, "entries", lambda size: small)
    comparison = replace(stsl_digits.COMPARISON, names=names)
    size = replace(QUICK, training=2, tuning=2, testing=3)
    run, ran = posterior_samplers.restored, []

    def restored(ground, job, settings, part, seeds):
        ran.append(job.name)
        if len(ran) == 6:
            raise KeyboardInterrupt
        return run(ground, job, settings, part, seeds)

    monkeypatch.setattr(posterior_samplers, "restored", restored)
    with pytest.raises(KeyboardInterrupt):
        posterior_samplers.compare(comparison, size)
    whole = posterior_samplers.compare(comparison, size)
    # three trials and the test of each; the second sampler began anew
    assert ran == ["psld"] * 4 + ["ldps"] * 2 + [name for name in names[1:] for _ in range(4)]
    monkeypatch.setattr(posterior_samplers, "_ground", pytest.fail)
    assert posterior_samplers.compare(comparison, size) == whole
    assert whole["superres_rows_stsl_550"]["value"] == 22
    assert whole["superres_psnr_psld"]["n"] == 3


def test_latents_of_made_images(tmp_path, monkeypatch) -> None:
    """Autoencoder, model of its latents, and samplers through both; without its data the part says so."""
    pytest.importorskip("diffusers")
    monkeypatch.delenv(stsl_latent.VARIABLE, raising=False)
    assert stsl_latent.run(quick=True) == {}
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.setattr(posterior_samplers, "available_cores", lambda: 1)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / "images" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"class{number % 2}" / f"{number}.png")
    section = FolderImageConfig(
        path=str(tmp_path / "images"),
        classes=True,
        size=16,
        channels=3,
        validation_fraction=0.2,
        cache=str(tmp_path / "cache"),
    )
    monkeypatch.setattr(stsl_latent, "opened", lambda size: open_images(section))
    monkeypatch.setattr(stsl_latent, "TRAIN", stsl_latent.TRAIN | {"batch_size": 4})
    small = {
        name: replace(entry, weights=entry.weights[:1], settings=replace(entry.settings, steps=2))
        for name, entry in entries(QUICK).items()
    }
    monkeypatch.setattr(posterior_samplers, "entries", lambda size: small)
    comparison = replace(stsl_latent.COMPARISON, names=("psld", "p2l_style", "first_order_550", "stsl_550", "mmps"))
    size = replace(stsl_latent.QUICK, training=1, autoencoder=1, tuning=1, testing=2, judge_steps=1, real=30)
    told = posterior_samplers.compare(comparison, size)
    assert told["latent_superres_rows_psld"]["value"] == told["latent_superres_decoder_vjps_psld"]["value"] == 2
    assert told["latent_superres_decoder_vjps_stsl_550"]["value"] == 10
    assert 0 <= told["latent_superres_ssim_mmps"]["value"] <= 1
    ground = stsl_latent.ground(size, tmp_path / "kept" / "stsl_latent" / "steps_1")
    assert (ground.prior.shape, ground.prior.image) == ((4, 8, 8), (3, 16, 16))
    assert ground.prior.decode(ground.prior.encode(ground.images)).shape == ground.images.shape == (3, 3, 16, 16)


def test_a_quick_run_gives_all_figures(tmp_path, monkeypatch) -> None:
    """And gives them again from what it has kept, with nothing run."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    told = stsl_exact.run(True)
    # costs stand in every table: 4 levels with 2 updates of 2 rows and one more, a paper's 8
    assert "a chain: 20 rows, 8 vjps, " in told["stsl_scaled_w2_gmm2"]["protocol"]
    assert "a paper's NFE: 8; 1 measurements" in told["stsl_scaled_w2_gmm2"]["protocol"]
    assert "a chain: 4 rows, " in told["mmps_w2_gmm2"]["protocol"]
    monkeypatch.setattr(stsl_exact, "compare", pytest.fail)
    assert stsl_exact.run(True) == told
    assert {"mmps_w2_gauss4", "mmps_w2_gmm2", "exact_w2_gauss4", "stsl_unit_variance_gmm2"} <= set(told)
    assert told["mmps_w2_gmm2"]["goal"] == "<= 0.14"
    assert linear_alphas()[0] < 1
