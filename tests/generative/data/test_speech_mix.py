"""Speech mixed on the fly: at the level it says, alike in any batch, with speakers and noises that are held out."""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from generative.data.loader import Loader
from generative.data.speech import known_speech_facts, open_speech
from generative.data.speech_config import MadeSpeechConfig, MixSpeechConfig
from generative.data.speech_draws import uniforms
from generative.data.speech_made import made_speech
from generative.data.speech_mix import noise_gain
from generative.data.speech_noises import Babble, ColouredNoise
from generative.data.speech_rooms import convolved, draw_room, impulse_responses
from generative.data.speech_settings import NoiseKinds
from generative.data.speech_split import split_names
from generative.data.speech_voices import JoinedVoice, rms
from generative.errors import DataError
from generative.randomness import Streams
from tests.support.voices import write_wav

RATE = 8000
PITCHES = {"ann": 300, "bob": 700, "cid": 1100, "dan": 1700, "eve": 2300}


def tone(pitch, seconds):
    return 0.1 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * RATE)) / RATE)


def pitches_in(signal, among):
    """Which of some pitches are in a signal, by its spectrum."""
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
    at = np.fft.rfftfreq(len(signal), 1 / RATE)
    return {name for name, f in among.items() if power[np.abs(at - f) < 30].sum() > 0.02 * power.sum()}


@pytest.fixture
def folders(tmp_path):
    """Four words each of five speakers, each a tone of the speaker's; five noises, tones of 2800 Hz and up."""
    for speaker, pitch in PITCHES.items():
        for word in range(4):
            write_wav(
                tmp_path / "speech" / f"{word}_{speaker}_0.wav", tone(pitch, 0.12 + 0.03 * word) * (word + 1) / 4, RATE
            )
    for number in range(5):
        write_wav(tmp_path / "noise" / f"n{number}.wav", tone(NOISES[f"n{number}"], 0.5), RATE)
    return tmp_path


@pytest.fixture
def config(folders):
    return MixSpeechConfig(
        speech=folders / "speech",
        noise=folders / "noise",
        sample_rate=RATE,
        length=2000,
        join=True,
        speaker=r"_([a-z]+)_",
        seconds=0.5,
        size=12,
        validation_size=4,
        test_size=8,
        cache=folders / "cache",
    )


def change(config, **values):
    return type(config)(**{**config.model_dump(), **values})


NOISES = {f"n{n}": 2800 + 200 * n for n in range(5)}


def parts_of(data):
    """{part: [(clean, noisy)]} with fresh crops of the training part."""
    held_out = {
        part: [data.whole_pair(part, n) for n in range(len(data.whole[part]))] for part in ("validation", "test")
    }
    batch = data.train.fetch(np.arange(len(data.train)))
    return {"train": list(zip(batch["clean"].numpy(), batch["noisy"].numpy(), strict=True)), **held_out}


def test_levels_are_what_they_say(config):
    data = open_speech(config)
    for part, pairs in parts_of(data).items():
        found = [10 * math.log10(np.mean(c**2) / np.mean((n - c) ** 2)) for c, n in pairs]
        if part == "train":
            assert all(-0.01 < level < 15.01 for level in found)
            assert max(found) - min(found) > 5
        else:
            assert found == pytest.approx([(0, 5, 10, 15)[n % 4] for n in range(len(found))], abs=1e-3)
    assert data.whole["test"].name(5) == "test_00005_5dB"


def test_no_speaker_and_no_noise_is_in_two_parts(config):
    speakers, noises = {}, {}
    for part, pairs in parts_of(open_speech(config)).items():
        heard = [pitches_in(clean, PITCHES) for clean, _ in pairs]
        assert all(len(found) == 1 for found in heard)  # words of one speaker
        speakers[part] = set.union(*heard)
        noises[part] = set.union(*(pitches_in(n - c, NOISES) for c, n in pairs))
    for found, sizes in ((speakers, (3, 1, 1)), (noises, (3, 1, 1))):
        assert tuple(len(found[part]) for part in ("train", "validation", "test")) == sizes
        assert len(set.union(*found.values())) == 5


def test_patterns_say_what_is_held_out(config):
    patterns = {"validation_speech": ["*_eve_*"], "test_speech": ["*_bob_*", "*_ann_*"], "test_noise": ["n[34].wav"]}
    found = parts_of(open_speech(change(config, **patterns)))
    assert {frozenset(pitches_in(c, PITCHES)) for c, _ in found["test"]} == {frozenset({"ann"}), frozenset({"bob"})}
    assert set.union(*(pitches_in(c, PITCHES) for c, _ in found["validation"])) == {"eve"}
    assert set.union(*(pitches_in(n - c, NOISES) for c, n in found["test"])) == {"n3", "n4"}
    with pytest.raises(DataError, match=r"no file fits data\.test_noise=\['x\*'\]"):
        open_speech(change(config, test_noise=["x*"]))
    with pytest.raises(DataError, match="nothing is left for train"):
        open_speech(change(config, test_noise=["n[0-3]*"], validation_noise=["n4*"]))


@given(st.integers(3, 30), st.integers(0, 5))
def test_splits_are_whole_and_disjoint(count, seed):
    rng = np.random.default_rng(seed)
    groups = [f"g{rng.integers(0, 5)}" for _ in range(count)]
    names = [f"{n}.wav" for n in range(count)]
    if len(set(groups)) < 3:
        groups = names
    found = split_names(names, groups, {"validation": (), "test": ()}, "x", "speech")
    assert sorted(n for part in found.values() for n in part) == list(range(count))
    assert sum(len({groups[n] for n in part}) for part in found.values()) == len(set(groups))


def test_a_sample_is_a_function_of_seed_epoch_and_number(config):
    config = change(config, noises={"files": 0.4, "coloured": 0.3, "babble": 0.3})
    source = open_speech(config).train
    batch = source.fetch(np.arange(12))
    assert torch.equal(open_speech(config).train.fetch(np.array([7, 3]))["noisy"], batch["noisy"][[7, 3]])
    for epoch, seed in ((1, 0), (0, 1)):
        other = source.fetch_anew(np.arange(12), np.full(12, epoch), seed)
        assert not any(torch.equal(a, b) for a, b in zip(other["noisy"], batch["noisy"], strict=True))

    def stream(**options):
        loader = Loader(source, batch_size=6, seed=1, **options)
        return [next(loader).micro_batches[0]["noisy"] for _ in range(3)]

    shares = [stream(rank=rank, world=3) for rank in range(3)]
    for step, noisy in enumerate(stream()):
        assert torch.equal(torch.cat([share[step] for share in shares]), noisy)


def test_joined_words_are_equally_loud_with_pauses_between(config):
    data = open_speech(change(config, seconds=3.0, gap=[0.05, 0.05]))
    voice = data.train.utterances.voice
    assert isinstance(voice, JoinedVoice)
    said = voice.speak(0, Streams(0), None)
    assert len(said) == 3 * RATE
    # Where 50 samples are silent there is a pause, since tones are not silent for longer than one.
    quiet = np.convolve(said != 0, np.ones(50), "valid") == 0
    starts, ends = (np.flatnonzero(np.diff(quiet.astype(int)) == sign) + 1 for sign in (1, -1))
    pauses = [(start, end + 49) for start, end in zip(starts, ends, strict=False)]
    assert len(pauses) > 8
    assert all(abs(end - start - 400) <= 2 for start, end in pauses)  # a tone begins with a 0 of its own
    loud = [rms(said[end:start]) for (_, end), (start, _) in pairwise(pauses)]
    assert loud == pytest.approx([0.08] * len(loud), rel=0.01)


def test_babble_is_of_other_speakers(config):
    data = open_speech(config)
    voice = data.train.utterances.voice
    for number in range(6):
        target = pitches_in(voice.speak(number, Streams(0), 4000), PITCHES)
        babble = pitches_in(Babble(voice).sound(number, Streams(0), 4000), PITCHES)
        assert babble
        assert not target & babble


def test_whole_files_come_once_in_an_epoch(config):
    data = open_speech(change(config, join=False, size=None, length=300))
    assert len(data.train) == 12
    found = {pair[0].tobytes() for pair in (data.train.utterances.pair(n, Streams(0)) for n in range(12))}
    assert len(found) == 12
    # Files of one speaker lie side by side, yet a few held-out samples are of all that are held out.
    longest = max(len(data.whole_pair("test", n)[0]) for n in range(4))
    assert longest == int(0.21 * RATE)


@pytest.mark.parametrize("number", range(6))
def test_coloured_noise_falls_as_a_power_of_frequency(number):
    sound = ColouredNoise(RATE).sound(number, Streams(0), 64 * RATE)
    power = np.abs(np.fft.rfft(sound)) ** 2
    at = np.fft.rfftfreq(len(sound), 1 / RATE)
    bands = [(100 * 2**k, 200 * 2**k) for k in range(5)]
    levels = [np.log2(power[(at >= low) & (at < high)].mean()) for low, high in bands]
    exponent = 2.5 * uniforms(Streams(0), "colour", number, 5)[0] - 0.5
    assert np.polyfit(range(5), levels, 1)[0] == pytest.approx(-exponent, abs=0.1)
    assert rms(sound) == pytest.approx(1, abs=1e-4)


@given(st.floats(-20, 40), st.integers(0, 9))
def test_noise_gain_is_the_definition(level, seed):
    speech, noise = np.random.default_rng(seed).standard_normal((2, 50)).astype(np.float32)
    gain = noise_gain(speech, 3 * noise, level)
    assert 20 * math.log10(rms(speech) / rms(gain * 3 * noise)) == pytest.approx(level, abs=1e-3)
    assert noise_gain(speech, 0 * noise, level) == 1


def test_made_speech_is_like_speech_and_needs_nothing(monkeypatch):
    for module in ("scipy", "soundfile", "pyroomacoustics"):
        monkeypatch.setitem(sys.modules, module, None)
    config = MadeSpeechConfig(sample_rate=RATE, length=4000, seconds=1.0, size=8, validation_size=2, test_size=2)
    data = open_speech(config)
    assert data.facts == known_speech_facts(config)
    assert (len(data.train), len(data.validation), len(data.whole["test"])) == (8, 2, 2)
    batch = data.train.fetch(np.arange(8))
    assert batch["clean"].shape == (8, 4000)
    assert batch["noisy"].abs().max() <= 1
    assert torch.equal(
        data.validation.fetch(np.array([1]))["clean"][0],
        torch.from_numpy(data.whole_pair("validation", 1)[0][2000:6000]),
    )
    assert data.fingerprint == open_speech(config).fingerprint != open_speech(change(config, snr=[0, 5])).fingerprint
    seen = {sample.numpy().tobytes() for sample in batch["clean"]}
    assert len(seen | {data.whole_pair(part, n)[0].tobytes() for part in data.whole for n in range(2)}) == 12


def test_made_speech_has_pauses_pitch_and_formants():
    sound = made_speech(0, Streams(0), 4 * 16000, 16000)
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    loud = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-9)
    assert (loud < loud.max() - 50).mean() > 0.03  # pauses
    assert (loud > loud.max() - 20).mean() > 0.3
    power = np.abs(np.fft.rfft(sound)) ** 2
    at = np.fft.rfftfreq(len(sound), 1 / 16000)
    assert power[(at > 80) & (at < 4000)].sum() > 0.8 * power.sum()
    voiced = frames[np.argmax(loud)]
    spectrum = np.abs(np.fft.rfft(np.pad(voiced, (0, 4096 - 160))))
    assert spectrum.max() > 5 * np.median(spectrum)
    assert rms(sound) == pytest.approx(0.08, rel=1e-3)


def test_rooms_reverberate_the_noisy_speech_and_not_its_target(config):
    pytest.importorskip("pyroomacoustics")
    data = open_speech(change(config, rooms={"count": 2}, held_out_snrs=[100.0], seconds=1.0))
    assert "without" not in data.description
    clean, noisy = data.whole_pair("test", 0)
    gaps = np.convolve(np.abs(clean), np.ones(80), "same") < 1e-3
    assert rms(noisy[gaps]) > 20 * rms(clean[gaps])
    again = open_speech(
        change(config, rooms={"count": 2}, held_out_snrs=[100.0], seconds=1.0, cache=config.cache / "2")
    )
    assert np.array_equal(again.whole_pair("test", 0)[1], noisy)


def test_a_room_has_the_reverberation_time_that_was_drawn():
    pytest.importorskip("pyroomacoustics")
    # A room of 8 x 7 x 5 m: in flat ones Sabine's formula promises less reverberation than there is.
    room = draw_room(1, Streams(0), (0.5, 0.5))
    assert room.sides == pytest.approx([7.7, 7.0, 4.9], abs=0.1)
    wet, dry = impulse_responses(room, 16000, 1)
    assert all((place >= 1).all() and (place <= room.sides - 1).all() for place in (room.source, room.microphone))
    decay = 10 * np.log10(
        np.cumsum(wet[::-1].astype(np.float64) ** 2)[::-1] / np.sum(wet.astype(np.float64) ** 2) + 1e-12
    )
    first, last = np.argmax(decay < -5), np.argmax(decay < -25)
    assert 3 * (last - first) / 16000 == pytest.approx(0.5, rel=0.2)
    assert abs(int(np.argmax(np.abs(dry))) - int(np.flatnonzero(np.abs(wet) > 0.5 * np.abs(wet).max())[0])) <= 2


def test_convolution_is_the_sum_that_it_should_be():
    rng = np.random.default_rng(0)
    signal, response = rng.standard_normal(50).astype(np.float32), rng.standard_normal(9).astype(np.float32)
    assert np.allclose(convolved(signal, response, 58), np.convolve(signal, response), atol=1e-5)
    assert np.allclose(convolved(signal, response, 50), np.convolve(signal, response)[:50], atol=1e-5)


def test_where_no_rooms_can_be_made_it_goes_on_without_and_says_so(config, monkeypatch):
    for module in ("speech_prepare", "speech_folders"):
        monkeypatch.setattr(f"generative.data.{module}.rooms_available", lambda: False)
    wanted = change(config, rooms={"count": 2})
    assert "without reverberation, since pyroomacoustics is not installed" in open_speech(wanted).description
    with pytest.raises(DataError, match=r"generative\[rooms\]"):
        open_speech(change(config, rooms={"count": 2, "missing": "refuse"}))


def test_mistakes_in_settings_are_told(config):
    for values, told in (
        ({"snr": [10, 0]}, "[low, high]"),
        ({"speaker": "_x_"}, "has no group"),
        ({"speaker": "("}, "regular expression"),
        ({"noise": None}, "data.noise"),
        ({"noises": {"files": 0}}, "no kind of noise"),
        ({"rooms": {"t60": [0.01, 0.5]}}, "0.1 s or more"),
    ):
        with pytest.raises(ValidationError) as caught:
            change(config, **values)
        assert told in str(caught.value)
    with pytest.raises(ValidationError, match="no noise files"):
        MadeSpeechConfig(noises=NoiseKinds(files=1))
    with pytest.raises(DataError, match=r"fits 4 of 20 files, but not 0_bob_0\.wav"):
        open_speech(change(config, speaker="_(ann)_"))
