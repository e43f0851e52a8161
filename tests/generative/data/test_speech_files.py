"""Sound files: every common form of wav is read to the last bit, what cannot be used is told with its reason."""

import sys
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.data.speech_files import Wanted, find_sounds, is_silent, read_signal, read_sound, resampled
from generative.data.speech_wave import Sound, UnusableError, read_wave, wave_bytes, wave_header
from generative.errors import DataError
from tests.support.fork_server import modules_after
from tests.support.voices import voice, wav_bytes, write_wav

WANTED = Wanted(rate=16000, resample=False, channel="refuse", min_seconds=0.01)
EXTENSIBLE = b"\x16\x00\x10\x00\x04\x00\x00\x00\x01\x00" + bytes(14)


def written(tmp_path, data):
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("numbers", "code", "bits", "extra"),
    [
        (np.array([0, 128, 255], np.uint8), 1, 8, b""),
        (np.array([-32768, 0, 1, 32767], "<i2"), 1, 16, b""),
        (np.array([-32768, 0, 1, 32767], "<i2"), 0xFFFE, 16, EXTENSIBLE),
        (np.array([-(2**31), 2**30], "<i4"), 1, 32, b""),
        (np.array([-1.5, 0.25], "<f4"), 3, 32, b""),
        (np.array([-1.5, 0.25], "<f8"), 3, 64, b""),
    ],
)
def test_wav_files_of_all_forms(tmp_path, numbers, code, bits, extra):
    path = written(tmp_path, wav_bytes(numbers.tobytes(), code, bits, extra=extra))
    whole = numbers.astype(np.float64) - (128 if bits == 8 else 0)
    expected = whole if code == 3 else whole / 2.0 ** (bits - 1)
    assert read_wave(path)[:, 0].tolist() == expected.tolist()
    assert read_sound(path) == Sound(16000, 1, len(numbers), bits, code != 3)


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=9))
def test_what_is_written_is_read_back(tmp_path_factory, numbers):
    path = written(tmp_path_factory.mktemp("wav"), wave_bytes(np.array(numbers) / 2**15, 22050))
    assert (read_wave(path)[:, 0] * 2**15).tolist() == numbers
    assert read_sound(path) == wave_header(path.read_bytes()) == Sound(22050, 1, len(numbers), 16)
    with wave.open(str(path)) as file:  # the standard library reads it too
        assert file.getparams()[:4] == (1, 2, 22050, len(numbers))


def test_loud_samples_are_clipped_and_wrong_ones_refused(tmp_path):
    path = written(tmp_path, wave_bytes(np.array([-3.0, 3.0]), 8000))
    assert read_wave(path)[:, 0].tolist() == [-1, 1 - 2**-15]
    for wrong in (np.zeros((2, 2)), np.array([np.nan])):
        with pytest.raises(ValueError, match="finite values"):
            wave_bytes(wrong, 8000)


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=9))
def test_24_bits_are_exact(tmp_path_factory, numbers):
    data = b"".join(n.to_bytes(3, "little", signed=True) for n in numbers)
    path = written(tmp_path_factory.mktemp("wav"), wav_bytes(data, 1, 24))
    assert (read_wave(path)[:, 0] * 2.0**23).tolist() == numbers


def test_channels(tmp_path):
    both = np.stack([voice(0, 0.1), voice(1, 0.1)], 1)
    path = write_wav(tmp_path / "x.wav", both, channels=2)
    channels = read_wave(path)
    with pytest.raises(UnusableError, match="2 channels"):
        read_signal(path, WANTED)
    first, mean = (read_signal(path, Wanted(16000, False, how, 0.01)) for how in ("first", "mean"))
    assert np.array_equal(first, channels[:, 0])
    assert np.allclose(mean, channels.mean(1))


def test_flac_files_are_the_same_as_wav_files(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = write_wav(tmp_path / "x.wav", voice(0, 0.1))
    soundfile.write(tmp_path / "x.flac", read_wave(path), 16000, subtype="PCM_16")
    assert read_sound(tmp_path / "x.flac") == read_sound(path)
    assert np.array_equal(read_signal(tmp_path / "x.flac", WANTED), read_signal(path, WANTED))
    (tmp_path / "bad.flac").write_bytes(b"no flac")
    with pytest.raises(UnusableError, match="not a flac file"):
        read_sound(tmp_path / "bad.flac")


def test_flac_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "x.flac").write_bytes(b"x")
    with pytest.raises(DataError, match=r"generative\[speech\]"):
        read_sound(tmp_path / "x.flac")


GOOD = wav_bytes(b"\1\2" * 400, 1, 16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"OggS" + bytes(40), "not a wav file"),
        (GOOD[:-100], "cut off: 700 of 800 bytes"),
        (GOOD[:36], "no samples in it"),
        (wav_bytes(b"", 1, 16), "no samples in it"),
        (wav_bytes(b"\1\2" * 400, 6, 8), "wav format 6 with 8 bits"),
        (wav_bytes(b"\1\2" * 400, 1, 16, channels=0), "header"),
        (wav_bytes(b"\1\2" * 400, 1, 16, rate=0), "header"),
        (wav_bytes(b"\1\2" * 400, 1, 16, rate=8000), "8000 Hz, not 16000"),
        (wav_bytes(b"\1\2" * 100, 1, 16), r"shorter than 0\.01 s"),
        (wav_bytes(bytes(800), 1, 16), "silent"),
        (wav_bytes(np.full(400, np.nan, "<f4").tobytes(), 3, 32), "not finite"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, data, reason):
    with pytest.raises(UnusableError, match=reason):
        read_signal(written(tmp_path, data), WANTED)


@given(st.binary(max_size=80), st.integers(0, 43))
def test_no_header_makes_it_stumble(tmp_path_factory, junk, place):
    data = GOOD[:place] + junk + GOOD[place:]
    try:
        found = read_wave(written(tmp_path_factory.mktemp("wav"), data))
    except UnusableError:
        return
    assert found.ndim == 2


def test_resampling_is_a_low_pass():
    pytest.importorskip("scipy")
    t = np.arange(20000) / 20000
    low, high = (np.sin(2 * np.pi * f * t).astype(np.float32) for f in (1000, 6000))
    found = resampled(low + high, 20000, 8000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    # 6 kHz would fold to 2 kHz; the ends have no past or future.
    assert found.shape == (8000,)
    assert found.dtype == np.float32
    assert np.abs(found - expected)[100:-100].max() < 2e-3
    assert resampled(low, 16000, 16000) is low


def test_folders_are_searched_to_the_bottom(tmp_path):
    for name in ("b/c/d/2.wav", "b/1.WAV", "a/3.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in find_sounds(tmp_path, "data.path")]
    assert found == ["a/3.flac", "b/1.WAV", "b/c/d/2.wav"]
    with pytest.raises(DataError, match="no such folder"):
        find_sounds(tmp_path / "nowhere", "data.path")
    (tmp_path / "sphere").mkdir()
    (tmp_path / "sphere" / "x.wv1").write_bytes(b"x")
    with pytest.raises(DataError, match="sph2pipe"):
        find_sounds(tmp_path / "sphere", "data.path")


def test_silence():
    assert is_silent(np.zeros(10))
    assert is_silent(np.full(10, 1e-6))
    assert not is_silent(np.full(10, 1e-4))


def test_nothing_heavy_is_imported():
    modules = "generative.data.speech, generative.data.speech_config, evaluation.speech, evaluation.speech_baselines"
    heavy = {"scipy", "soundfile", "pesq", "pystoi", "pyroomacoustics"}
    assert modules_after(f"import {modules}") & heavy == set()


def test_a_rate_that_no_recorder_has_is_a_damaged_header(tmp_path):
    # A filter to resample from it would take more memory than there is.
    data = bytearray(wave_bytes(np.zeros(10), 8000))
    data[24:28] = (2**32 - 15).to_bytes(4, "little")
    with pytest.raises(UnusableError, match="a header that cannot be read"):
        read_sound(written(tmp_path, bytes(data)))
