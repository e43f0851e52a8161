"""Spectrograms as PNG files: where tones appear, one scale for all signals, any length."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.data.speech_pictures import GAP, HEIGHT, LEVELS, RANGE_DB, WIDTH, WINDOW_SECONDS, spectrogram_png
from generative.errors import DataError

image = pytest.importorskip("PIL.Image")

RATE = 16000


def levels(signals, rate=RATE):
    """Rows of the palette [signals, HEIGHT, WIDTH], the lowest frequency first, and the palette itself."""
    picture = image.open(io.BytesIO(spectrogram_png(signals, rate)))
    rows = np.asarray(picture)
    assert rows.shape == (len(signals) * (HEIGHT + GAP) - GAP, WIDTH)
    padded = np.concatenate([rows, np.full((GAP, WIDTH), LEVELS, np.uint8)]).reshape(len(signals), -1, WIDTH)
    assert (padded[:, HEIGHT:] == LEVELS).all()  # the lines between them
    palette = np.array(picture.getpalette()).reshape(-1, 3)[: LEVELS + 1]
    return padded[:, :HEIGHT][:, ::-1].astype(int), palette


def tone(hertz, seconds=1.0, rate=RATE, gain=1.0):
    return gain * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("seconds", [0.2, 3.0, 30.0])
def test_a_tone_is_the_brightest_line_at_its_height(rate, seconds):
    edge = 2 + int(WINDOW_SECONDS / 2 / seconds * WIDTH)  # windows that reach beyond the signal
    for share in (0.1, 0.5, 0.9):
        (found,), _ = levels([tone(share * rate / 2, seconds, rate)], rate)
        assert np.abs(found[:, edge:-edge].argmax(axis=0) - share * HEIGHT).max() <= 1.5


def test_sound_appears_when_it_is_heard_and_a_click_in_a_long_signal_is_not_lost():
    half = tone(2000, 2.0) * (np.arange(2 * RATE) > RATE)
    (found,), _ = levels([half])
    row = found[HEIGHT // 4]
    assert (row[: WIDTH // 2 - 20] == 0).all()
    assert (row[WIDTH // 2 + 20 : -20] == LEVELS - 1).all()
    for place in (0.1, 0.4567, 0.9):
        click = np.zeros(200 * RATE)
        click[int(place * len(click))] = 1
        (found,), _ = levels([click])
        bright = np.flatnonzero(found.max(axis=0))
        assert np.abs(bright - place * WIDTH).max() <= 2


def test_all_signals_share_one_scale_of_decibels():
    found, _ = levels([tone(1000), tone(1000, gain=0.01), tone(1000, gain=10 ** (-1.1 * RANGE_DB / 20))])
    tops = found[:, :, 10:-10].max(axis=(1, 2))
    assert tops.tolist() == [LEVELS - 1, round((1 - 40 / RANGE_DB) * (LEVELS - 1)), 0]


def test_the_picture_does_not_depend_on_the_scale():
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(2, 3000))
    expected = spectrogram_png(signals, RATE)
    for scale in (2.0**-1000, 2.0**-20, 2.0**500):
        assert spectrogram_png(signals * scale, RATE) == expected


@settings(max_examples=10, deadline=None)
@given(length=st.integers(1, 5000), count=st.integers(1, 4), rate=st.sampled_from([1, 8000, 48000]))
def test_any_length_gives_a_picture_and_silence_is_dark(length, count, rate):
    found, _ = levels([np.zeros(length)] * count, rate)
    assert (found == 0).all()
    found, _ = levels([np.ones(length, np.float32)] * count, rate)
    assert found.max() == LEVELS - 1


def test_colours_grow_lighter_and_lines_are_white():
    _, palette = levels([tone(100)])
    linear = ((palette / 255 + 0.055) / 1.055) ** 2.4
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert palette[-1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("signals", "what"),
    [
        ([], "shape none"),
        ([np.zeros(0)], r"shape \[0\]"),
        ([np.zeros(4), np.zeros(5)], r"shape \[4\] and \[5\]"),
        ([np.zeros((2, 4))], r"shape \[2, 4\]"),
        ([np.zeros(4), np.array([0, np.nan, np.inf, 0])], "2 of 8 samples"),
    ],
)
def test_what_cannot_be_drawn_is_refused(signals, what):
    with pytest.raises(DataError, match=what):
        spectrogram_png(signals, RATE)
