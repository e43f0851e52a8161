"""The report of a run that enhances speech: sounds to play beside their spectrograms."""

import base64
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.reporting import sounds
from evaluation.reporting.sounds import MAX_SHOWN, whole_wave
from generative.data.speech_wave import wave_bytes
from tests.support.page import HOSTILE, page_of
from tests.support.voices import wav_bytes

NAMES = ("noisy", "enhanced", "clean")
WAVE = wave_bytes(np.linspace(-0.5, 0.5, 160), 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fake):
    return fake.write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whole(folder):
    return page_of(folder)


def players(page):
    return [attributes for tag, attributes in page.tags if tag == "audio"]


def content(player):
    head, _, data = player["src"].partition(",")
    assert head == "data:audio/wav;base64"
    return base64.b64decode(data)


def item(**more):
    return {"kind": "speech", "title": "one", "file": "a.png", "sounds": {"enhanced": "a.wav"}} | more


def written(folder, *items, step=7):
    """The page of a folder with some items, and with one sound that they may name."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "samples" / f"step_{step:06d}.json").write_text(json.dumps({"step": step, "items": items}))
    if not os.path.lexists(folder / "samples" / "a.wav"):
        (folder / "samples" / "a.wav").write_bytes(WAVE)
    return page_of(folder)


# ---------------------------------------------------------------------- what is shown


def test_the_newest_sounds_are_embedded_bit_by_bit_and_earlier_ones_follow_from_the_first_on(folder, whole):
    files = [f"step_000150_{i}_{name}.wav" for i in range(2) for name in NAMES]
    files += [f"step_{step:06d}_0_enhanced.wav" for step in (50, 100)]
    for player, file in zip(players(whole), files, strict=True):
        assert content(player) == (folder / "samples" / file).read_bytes()
    images = [a["src"].partition(",")[2] for tag, a in whole.tags if tag == "img"]
    assert [base64.b64decode(data) for data in images] == [
        (folder / "samples" / f"step_000150_{i}.png").read_bytes() for i in range(2)
    ]


def test_every_player_and_picture_says_what_it_is(whole):
    assert all("controls" in player and player["preload"] == "metadata" for player in players(whole))
    labels = [player["aria-label"] for player in players(whole)]
    assert labels[:4] == [
        "Noisy: made_test 0, 5 dB, after step 150",
        "Enhanced: made_test 0, 5 dB, after step 150",
        "Clean: made_test 0, 5 dB, after step 150",
        "Noisy: made_test 1, 5 dB, after step 150",
    ]
    assert labels[-1] == "Enhanced: made_test 0, 5 dB, after step 100"
    picture = next(a for tag, a in whole.tags if tag == "img")
    assert picture["alt"] == (
        "Spectrograms of made_test 0, 5 dB: noisy, enhanced, clean, from top to bottom, after step 150"
    )
    assert "From top to bottom: noisy, enhanced, clean. Each: 0 to 8 kHz upwards, 0.3 s to the right." in whole.text


def test_figures_stand_beside_the_sounds_rounded_with_where_they_come_from(whole):
    first = whole.text[whole.text.index("made_test 0") : whole.text.index("made_test 1")]
    assert "NoisySI-SDR 5.0 dBESTOI 0.61" in first
    assert "EnhancedSI-SDR 5.0 → 12.5 dBESTOI 0.61 → 0.83" in first
    assert first.endswith("Clean")
    earlier = whole.text[whole.text.index("Earlier in the training") :]
    assert "step 50SI-SDR 5.0 → 7.5 dBESTOI 0.61 → 0.83step 100SI-SDR 5.0 → 10.0 dB" in earlier


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({"pesq_wb": {"noisy": 1.2, "enhanced": 2.346}}, "EnhancedPESQ (wide band) 1.20 → 2.35"),
        ({"si_sdr": {"enhanced": -3.04}}, "EnhancedSI-SDR -3.0 dB"),
        ({"si_sdr": {"noisy": 5.0}}, "Enhanced"),
        ({"my_own": {"noisy": None, "enhanced": 1}}, "Enhancedmy own 1.00"),
        ({"si_sdr": {"noisy": "5", "enhanced": float("inf")}, "estoi": 3}, "Enhanced"),
    ],
)
def test_figures_that_are_not_there_are_left_out(tmp_path, figures, told):
    assert f"the louder.one{told}\n" in written(tmp_path, item(figures=figures)).text


def test_listening_comes_first_and_its_samples_are_no_texts(whole):
    sections = [a["id"] for tag, a in whole.tags if tag == "section"]
    assert sections[:2] == ["listen", "learning"]
    assert "samples" not in sections
    assert "Enhanced after step 150, weights: ema 0.999." in whole.text


def test_figures_measured_on_the_way_have_their_names_and_are_not_called_copies(tmp_path, fake):
    fake.write_speech(tmp_path)
    seen = {"si_sdr": 3.0, "si_sdr_gain": 1.0, "estoi": 0.5, "my_own": 2.0}
    rows = [{"kind": "monitor", "step": s, "time": 1.0, "metrics": seen} for s in (50, 100)]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    page = page_of(tmp_path)
    titles = {name: chart["title"] for name, chart in page.charts.items() if name.startswith("watch-")}
    assert titles == {
        "watch-si_sdr": "SI-SDR",
        "watch-si_sdr_gain": "SI-SDR, gain",
        "watch-estoi": "ESTOI",
        "watch-my_own": "My own",
    }
    assert "Samples along the training" in page.text
    assert "copies" not in page.text


def test_the_policy_adds_sounds_that_are_data_and_only_where_there_are_some(whole, tmp_path, fake):
    def policy(page):
        return next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")

    assert policy(whole).endswith("; img-src data:; media-src data:")
    assert policy(whole).startswith("default-src 'none'")
    assert "unsafe" not in policy(whole)
    for make in (fake.write_run, fake.write_images):
        page = page_of(make(tmp_path / make.__name__))
        assert policy(page).endswith("; img-src data:")
        assert page.count("audio") == 0


# ---------------------------------------------------------------------- what cannot be trusted


@pytest.mark.parametrize(
    "name",
    ["../out.wav", "sub/in.wav", "/out.wav", "..", ".", "", ".hidden.wav", "a\\b.wav", "\0", 5, None, ["a.wav"], {}],
)
def test_names_that_lead_elsewhere_are_left_out(tmp_path, name):
    run = tmp_path / "run"
    for place in (run / "samples" / "sub" / "in.wav", run / "out.wav", run / "samples" / ".hidden.wav"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(WAVE)
    assert players(written(run, item(sounds={"enhanced": name}))) == []


def test_links_pipes_and_folders_are_left_out(tmp_path):
    run = tmp_path / "run"
    (run / "samples" / "folder.wav").mkdir(parents=True)
    (tmp_path / "private.wav").write_bytes(WAVE)
    (run / "samples" / "link.wav").symlink_to(tmp_path / "private.wav")
    os.mkfifo(run / "samples" / "pipe.wav")
    kinds = ("link", "pipe", "folder", "absent")
    assert players(written(run, *(item(sounds={"enhanced": f"{kind}.wav"}) for kind in kinds))) == []


BROKEN = {
    "html": b"<script>alert(1)</script>",
    "empty": b"",
    "cut off": WAVE[:-2],
    "header alone": WAVE[:44],
    "no samples": wave_bytes(np.zeros(0), 16000),
    "something behind it": WAVE + b"<html>",
    "a length that is not true": wav_bytes(bytes(20), 1, 16, size=40),
    "unknown format": wav_bytes(bytes(20), 85, 16),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_files_that_are_no_whole_wav_are_left_out_and_the_others_stay(tmp_path, kind):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "b.wav").write_bytes(BROKEN[kind])
    page = written(tmp_path, item(sounds={"enhanced": "a.wav", "clean": "b.wav"}), item(sounds={"clean": "b.wav"}))
    assert [content(player) for player in players(page)] == [WAVE]
    assert "Clean" not in page.text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(WAVE)))
def test_any_bytes_are_a_sound_or_not(data, at):
    assert whole_wave(data) is None
    assert whole_wave(WAVE[:at]) is None or at == len(WAVE)
    whole_wave((WAVE[:at] + data + WAVE[at + len(data) :])[: len(WAVE)])


def test_without_its_picture_a_sound_is_still_played(tmp_path):
    page = written(tmp_path, item(), item(file="../a.png"))
    assert len(players(page)) == 2
    assert page.count("img") == 0


def test_where_the_newest_sounds_are_missing_the_ones_before_stand_there(tmp_path, fake):
    fake.write_speech(tmp_path, count=1)
    for name in NAMES:
        (tmp_path / "samples" / f"step_000150_0_{name}.wav").unlink()
    page = page_of(tmp_path)
    assert [p["aria-label"].partition(":")[0] for p in players(page)] == ["Noisy", "Enhanced", "Clean", "Enhanced"]
    assert "Enhanced after step 100" in page.text


def test_hostile_names_stay_text(tmp_path):
    said = HOSTILE.replace("\x00", "")
    page = written(
        tmp_path, item(title=said, sounds={said: "a.wav"}, figures={said: {said: 1.0}}), item(title=3, sounds=[3])
    )
    assert page.count("script") == 3
    assert page.count("img") == 0
    assert len(players(page)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(HOSTILE) | st.sampled_from(["a.wav", "a.png"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["noisy", "enhanced", "si_sdr"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ITEM = st.fixed_dictionaries({"kind": st.just("speech"), "title": JSON, "file": JSON, "sounds": JSON, "figures": JSON})


@settings(max_examples=40, deadline=None)
@given(items=st.lists(ITEM, max_size=3), step=JSON)
def test_wrong_types_anywhere_never_stop_the_report(tmp_path_factory, fake, items, step):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "samples").mkdir()
    (folder / "samples" / "a.png").write_bytes(fake.png())
    (folder / "samples" / "a.wav").write_bytes(WAVE)
    for name in ("a", "b"):
        (folder / "samples" / f"{name}.json").write_text(json.dumps({"items": items, "step": step, "model": step}))
    assert page_of(folder).count("script") == 3


# ---------------------------------------------------------------------- the size of the page


def test_of_many_utterances_the_first_are_shown(tmp_path):
    page = written(tmp_path, *(item(title=f"number {i}") for i in range(MAX_SHOWN + 3)))
    assert [p["aria-label"] for p in players(page)] == [f"Enhanced: number {i}, after step 7" for i in range(MAX_SHOWN)]


def test_the_page_takes_no_more_than_its_budget_and_says_where_the_rest_is(tmp_path, fake, monkeypatch):
    size = len(wave_bytes(np.zeros(4800), 16000))
    fake.write_speech(tmp_path, steps=(50, 100))
    (tmp_path / "samples" / "step_000100_0.png").unlink()
    monkeypatch.setattr(sounds, "MAX_PAGE", 4 * size)
    page = page_of(tmp_path)
    # The enhanced sound of each utterance comes before its others, the newest before the earlier ones.
    heard = [f"step_000100_{name}.wav" for name in ("0_noisy", "0_enhanced", "0_clean", "1_enhanced")]
    assert [content(p) for p in players(page)] == [(tmp_path / "samples" / name).read_bytes() for name in heard]
    assert "Too large for this page: samples/step_000100_1_noisy.wav" in page.text
    assert page.text.count("Too large") == 2
    assert "Earlier in the training" not in page.text
    monkeypatch.setattr(sounds, "MAX_PAGE", size - 1)
    assert players(page_of(tmp_path)) == []
