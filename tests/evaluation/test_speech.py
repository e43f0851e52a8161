"""Figures of enhanced speech. Golden: metrics.npz has int16 signals and their figures by the released SGMSE code
(energy ratios), pystoi 0.4.1 (extended) and pesq 0.0.4 (wide band)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.process_pool import in_pool
from evaluation.speech import (
    METRICS,
    FileScore,
    SpeechItem,
    default_metrics,
    merge,
    paired_gain,
    score_file,
    score_files,
    summary,
)
from evaluation.speech_scores import energy_ratios, si_sdr
from generative.errors import ConfigError, DataError
from tests.support.doomed import perhaps_die
from tests.support.voices import voice

GOLDEN = Path(__file__).parents[1] / "golden" / "sgmse" / "metrics.npz"
RATIOS = ("si_sdr", "si_sir", "si_sar")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        values = dict(file)
    for name in ("clean", "noise", "estimate"):
        values[name] = values[name] / values["int16_scale"]
    return values


def noise_of(number, count):
    return 0.05 * np.random.default_rng(number).standard_normal(count)


def item(number, gain=0.3, loudness=1.0):
    clean = voice(number, 0.1)
    noise = loudness * noise_of(number, len(clean))
    return SpeechItem(f"{number}.wav", clean, clean + gain * noise, clean + noise)


def test_energy_ratios_are_those_of_the_released_code(golden):
    found = energy_ratios(golden["estimate"], golden["clean"], golden["noise"])
    assert [found.si_sdr, found.si_sir, found.si_sar] == pytest.approx(golden["energy_ratios"].tolist(), abs=1e-4)
    noisy = energy_ratios(golden["clean"] + golden["noise"], golden["clean"], golden["noise"])
    # What is left of the noisy signal besides target and noise is the part of them that is not orthogonal: nearly 0.
    assert [noisy.si_sdr, noisy.si_sir] == pytest.approx(golden["energy_ratios_noisy"][:2].tolist(), abs=1e-4)
    assert noisy.si_sar == pytest.approx(golden["energy_ratios_noisy"][2], abs=1e-3)
    assert si_sdr(golden["estimate"], golden["clean"]) == pytest.approx(float(golden["si_sdr"]), abs=1e-4)


def test_perceptual_figures_are_those_of_their_packages(golden):
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    found = score_file(SpeechItem("x", golden["clean"], golden["estimate"]), 16000, ["estoi", "pesq_wb"])
    assert found.values["estoi"] == pytest.approx(float(golden["estoi_16k"]), abs=1e-3)
    assert found.values["pesq_wb"] == pytest.approx(float(golden["pesq_wb_16k"]), abs=1e-3)


@given(st.floats(0.01, 100), st.integers(0, 50))
def test_ratios_do_not_depend_on_scale(scale, seed):
    rng = np.random.default_rng(seed)
    s, n, e = rng.standard_normal((3, 64))
    first, second = energy_ratios(e, s, n), energy_ratios(scale * e, s, n)
    assert [first.si_sdr, first.si_sir, first.si_sar] == pytest.approx([second.si_sdr, second.si_sir, second.si_sar])


def test_closed_forms_for_orthogonal_signals():
    t = np.arange(1000)
    s, n, a = (np.sin(2 * np.pi * k * t / 1000) for k in (3, 7, 11))
    found = energy_ratios(2 * s + 0.2 * n + 0.02 * a, s, n)
    assert found.si_sir == pytest.approx(20)
    assert found.si_sar == pytest.approx(40)
    assert found.si_sdr == pytest.approx(-10 * math.log10(1e-2 + 1e-4))


@pytest.mark.parametrize("gain", [1.0, 2.0, 0.5])
def test_the_level_of_what_is_clean_in_the_estimate(gain: float) -> None:
    t = np.arange(1000)
    s, n = (np.sin(2 * np.pi * k * t / 1000) for k in (3, 7))
    found = score_file(SpeechItem("x", s, gain * s + 0.5 * n), 16000, ["level_error", "si_sdr"]).values
    assert found["level_error"] == pytest.approx(abs(20 * math.log10(gain)), abs=1e-9)
    against = score_file(SpeechItem("x", s, -s), 16000, ["level_error"])
    assert "level_error" in against.failed


def test_workers_shards_and_records_change_nothing():
    items = [item(n) for n in range(5)]
    alone = score_files(items, 16000, RATIOS)
    told = []
    assert score_files(reversed(items), 16000, RATIOS, workers=2, progress=told.append) == alone
    assert told == [1, 2, 3, 4, 5]
    shards = [score_files(items[k::2], 16000, RATIOS) for k in range(2)]
    read = [[FileScore.from_json(json.loads(json.dumps(one.to_json()))) for one in part] for part in shards]
    assert merge(read) == alone
    assert summary(merge(read)) == summary(alone)


def test_the_mean_has_its_standard_error_and_says_how_it_was_measured():
    scores = score_files([item(n) for n in range(4)], 16000, ["si_sdr"])
    values = np.array([one.values["si_sdr"] for one in scores])
    figure = summary(scores, "made speech").figures["si_sdr"]
    assert figure.value == pytest.approx(values.mean())
    assert figure.stderr == pytest.approx(values.std(ddof=1) / 2)
    assert (figure.n, figure.unit) == (4, "dB")
    assert figure.protocol == "made speech; mean over 4 files at 16000 Hz; no mean removal"


def test_a_paired_gain_is_free_of_how_hard_the_files_are():
    items = [item(n, loudness=2.0**-n) for n in range(4)]
    better = score_files(items, 16000, ["si_sdr"])
    noisy = score_files([SpeechItem(i.name, i.clean, i.noisy) for i in items], 16000, ["si_sdr"])
    gain = paired_gain(better, noisy, "si_sdr")
    # The noise is 0.3 times as loud, whatever the file.
    assert gain.value == pytest.approx(-20 * math.log10(0.3), abs=0.3)
    assert gain.stderr < 0.1 * summary(noisy).figures["si_sdr"].stderr
    with pytest.raises(DataError, match="no file has a value of si_sdr for both"):
        paired_gain(better, [], "si_sdr")


def bad_items():
    good = item(0)
    silent, broken = np.zeros(1600), good.estimate.copy()
    broken[3] = np.nan
    return {
        "clean silent": (SpeechItem("a", silent, good.estimate, good.noisy), "the clean signal is silent"),
        "estimate silent": (SpeechItem("a", good.clean, silent, good.noisy), "the estimate signal is silent"),
        "not finite": (SpeechItem("a", good.clean, broken, good.noisy), "the estimate signal is not finite"),
        "lengths": (SpeechItem("a", good.clean, good.estimate[:-1]), "lengths differ"),
        "noisy length": (SpeechItem("a", good.clean, good.estimate, good.noisy[:-1]), "lengths differ"),
        "stereo": (SpeechItem("a", good.clean, np.stack([good.clean] * 2)), "shapes"),
        "perfect": (SpeechItem("a", good.clean, good.clean.copy()), "the value is inf"),
    }


@pytest.mark.parametrize("case", bad_items())
def test_a_file_without_a_value_is_listed_and_not_averaged_in(case):
    wrong, reason = bad_items()[case]
    scores = score_files([wrong, item(1)], 16000, ["si_sdr"])
    found = summary(scores)
    assert found.figures["si_sdr"].value == pytest.approx(score_file(item(1), 16000, ["si_sdr"]).values["si_sdr"])
    assert found.figures["si_sdr"].n == 1
    assert "1 without a value left out" in found.figures["si_sdr"].protocol
    assert len(found.failed) == 1
    assert found.failed[0].startswith("a: si_sdr: ")
    assert reason in found.failed[0]


def test_what_one_metric_cannot_say_the_others_still_do():
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    found = score_file(SpeechItem("a", *[item(2).clean, item(2).estimate]), 16000, default_metrics(16000))
    assert set(found.values) == {"si_sdr", "level_error"}
    assert set(found.failed) == {"si_sir", "si_sar", "estoi", "stoi", "pesq_wb"}
    assert "0.4 s of speech" in found.failed["estoi"]
    assert "give the noisy file too" in found.failed["si_sir"]
    assert found.failed["pesq_wb"]


def test_wrong_metrics_are_told_before_the_first_file(monkeypatch):
    def never():
        raise AssertionError
        yield

    with pytest.raises(ConfigError, match="Did you mean pesq_wb"):
        score_files(never(), 16000, ["pesq"])
    with pytest.raises(ConfigError, match="pesq_nb instead"):
        score_files(never(), 8000, ["pesq_wb"])
    monkeypatch.setitem(__import__("sys").modules, "pystoi", None)
    with pytest.raises(DataError, match=r"generative\[speech\]"):
        score_files(never(), 16000, ["estoi"])
    assert "pesq_nb" in default_metrics(8000)
    assert "pesq_wb" in default_metrics(48000)


def test_records_do_not_merge_where_they_must_not():
    one = score_file(item(0), 16000, ["si_sdr"])
    with pytest.raises(DataError, match=r"scored twice: 0\.wav"):
        merge([[one], [one]])
    with pytest.raises(DataError, match="8000 and 16000 Hz"):
        merge([[one], [FileScore("other", 8000, {})]])
    with pytest.raises(ValueError, match="not a score"):
        FileScore.from_json({"name": "x"})


@pytest.mark.distributed
def test_a_file_that_kills_its_process_does_not_take_others_along():
    assert dict(in_pool(perhaps_die, range(4), 2)) == {0: 0, 1: -1, 2: None, 3: -3}


def test_every_metric_is_known_by_some_default():
    assert {*default_metrics(8000), *default_metrics(16000)} == set(METRICS)
