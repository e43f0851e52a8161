"""Folders of clean and noisy files: paired right, prepared once whatever is killed; all culprits in one message."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from generative.data import speech_pack
from generative.data.loader import Loader
from generative.data.speech import check_speech_batch, open_speech, prepare_speech
from generative.data.speech_config import (
    EarsWhamConfig,
    PairsSpeechConfig,
    VoiceBankConfig,
    Wsj0ChimeConfig,
    Wsj0ReverbConfig,
)
from generative.data.speech_tracks import SpeechManifest
from generative.data.speech_wave import read_wave
from generative.errors import DataError
from tests.support.voices import voice, write_wav

LENGTH = 800


def write_pair(root, name, number, seconds=0.1, rate=16000, noisy_name=None):
    clean = voice(number, seconds, rate)
    noise = 0.02 * np.random.default_rng(number).standard_normal(len(clean))
    write_wav(root / "clean" / f"{name}.wav", clean, rate)
    write_wav(root / "noisy" / f"{noisy_name or name}.wav", clean + noise, rate)


@pytest.fixture
def folder(tmp_path):
    """Eight pairs of 0.1 s, two of them three folders down."""
    root = tmp_path / "speech"
    for number in range(8):
        write_pair(root, f"a/b/c/{number}" if number > 5 else f"{number}", number)
    return root


@pytest.fixture
def config(folder, tmp_path):
    return PairsSpeechConfig(path=folder, length=LENGTH, validation_fraction=0.25, cache=tmp_path / "cache")


def change(config, **values):
    return type(config)(**{**config.model_dump(), **values})


def problem(config):
    with pytest.raises(DataError) as caught:
        open_speech(config)
    assert caught.value.expected
    assert caught.value.remedy
    return str(caught.value)


def whole(data, part, utterances=None):
    """{name: (clean, noisy)}"""
    found = utterances or data.whole[part]
    return {found.name(n): data.whole_pair(part, n) for n in range(len(found))}


def test_pairs_are_the_files_to_the_last_bit(config, folder):
    data = open_speech(config)
    assert (len(data.train), len(data.validation)) == (6, 2)
    found = {**whole(data, "validation")}
    for n in range(6):
        found[data.train.utterances.name(n)] = data.train.utterances.pair(n, None)
    assert set(found) == {*map(str, range(6)), "a/b/c/6", "a/b/c/7"}
    for name, pair in found.items():
        for folder_name, signal in zip(("clean", "noisy"), pair, strict=True):
            assert np.array_equal(signal, read_wave(folder / folder_name / f"{name}.wav")[:, 0])
    assert SpeechManifest.read(prepare_speech(config)).tracks["train.clean"].dtype == "<i2"


def test_crops_are_of_one_place_and_new_in_each_epoch(config):
    source = open_speech(config).train
    numbers = np.arange(6)
    batch = source.fetch(numbers)
    assert batch["clean"].shape == batch["noisy"].shape == (6, LENGTH)
    for n in numbers:
        clean, noisy = source.utterances.pair(n, None)
        places = [p for p in range(len(clean) - LENGTH + 1) if np.array_equal(clean[p : p + LENGTH], batch["clean"][n])]
        assert len(places) == 1
        assert np.array_equal(noisy[places[0] : places[0] + LENGTH], batch["noisy"][n])
    again, later, other = (source.fetch_anew(numbers, np.full(6, e), seed) for e, seed in ((0, 0), (1, 0), (0, 1)))
    assert torch.equal(again["clean"], batch["clean"])
    assert not torch.equal(later["clean"], batch["clean"])
    assert not torch.equal(other["clean"], batch["clean"])
    # A sample is the same in whatever batch it is.
    assert torch.equal(source.fetch(np.array([4]))["noisy"][0], batch["noisy"][4])


def test_ranks_workers_and_resume_give_the_same_batches(config):
    source = open_speech(config).train

    def batches(count, **options):
        loader = Loader(source, batch_size=4, seed=3, **options)
        return [next(loader).micro_batches[0] for _ in range(count)], loader.state()

    # 4 batches of 4 out of 6 utterances: into the third epoch.
    alone, _ = batches(4)
    shared = [batches(4, rank=rank, world=2)[0] for rank in range(2)]
    resumed, _ = batches(2, state=batches(2)[1])
    for step, batch in enumerate(alone):
        for name in ("clean", "noisy", "sample_id"):
            assert torch.equal(torch.cat([part[step][name] for part in shared]), batch[name])
            if step >= 2:
                assert torch.equal(resumed[step - 2][name], batch[name])
    travelled = pickle.loads(pickle.dumps(source))
    assert torch.equal(travelled.fetch(np.arange(6))["noisy"], source.fetch(np.arange(6))["noisy"])


def test_short_utterances_stand_in_the_middle_of_zeros(config):
    data = open_speech(change(config, length=1603))
    assert len(data.whole_pair("validation", 0)[0]) == 1600
    for source, pair in (
        (data.validation, data.whole_pair("validation", 0)),
        (data.train, data.train.utterances.pair(0, None)),
    ):
        for name, signal in zip(("clean", "noisy"), pair, strict=True):
            sample = source.fetch(np.array([0]))[name][0].numpy()
            assert np.array_equal(sample, np.concatenate([[0], signal, [0, 0]]))
    middle = open_speech(config)
    assert np.array_equal(
        middle.validation.fetch(np.array([1]))["noisy"][0], middle.whole_pair("validation", 1)[1][400:1200]
    )


def test_folders_of_parts_are_taken_as_they_are(folder, tmp_path):
    root = tmp_path / "parts"
    for part in ("train", "valid", "test"):
        shutil.copytree(folder, root / part)
    for number in range(3):
        (root / "valid" / "clean" / f"{number}.wav").unlink()
        (root / "valid" / "noisy" / f"{number}.wav").unlink()
    data = open_speech(PairsSpeechConfig(path=root, length=LENGTH, cache=tmp_path))
    assert (len(data.train), len(data.validation), len(data.whole["test"])) == (8, 5, 8)
    shutil.rmtree(root / "valid")
    shutil.rmtree(root / "test")
    data = open_speech(PairsSpeechConfig(path=root, length=LENGTH, validation_files=("[45]", "a/*"), cache=tmp_path))
    assert set(whole(data, "validation")) == {"4", "5", "a/b/c/6", "a/b/c/7"}
    assert "these to report on, for want of others" in data.description


def test_every_culprit_is_named_in_one_message(config, folder):
    write_pair(folder, "rate", 20, rate=8000)
    write_wav(folder / "clean" / "stereo.wav", np.zeros((1600, 2)), channels=2)
    write_wav(folder / "noisy" / "stereo.wav", np.zeros((1600, 2)), channels=2)
    write_pair(folder, "short", 21, seconds=0.02)
    kept = change(config, validation_files=("0", "1"), leave_out=True)
    write_pair(folder, "broken", 22)
    (folder / "noisy" / "broken.wav").write_bytes(b"RIFF")
    write_pair(folder, "unequal", 23)
    write_wav(folder / "clean" / "unequal.wav", voice(23, 0.2))
    told = problem(change(config, validation_files=("0", "1")))
    for part in (
        "5 of 13 files cannot be used",
        "8000 Hz, not 16000 (1: rate)",
        "2 channels (1: stereo)",
        "shorter than 0.1 s (1: short)",
        "not a wav file (1: broken)",
        "clean and noisy of unequal length (1: unequal)",
        "data.resample=true",
        "data.channel=first",
        "data.leave_out=true",
    ):
        assert part in told
    data = open_speech(kept)
    # Those left out do not decide about the others: these have 16 bits.
    assert SpeechManifest.read(prepare_speech(kept)).tracks["train.clean"].dtype == "<i2"
    assert (len(data.train), len(data.validation)) == (6, 2)
    assert "5 of 13 files left out: " in data.description


def test_silence_is_found_when_the_sound_is_read(config, folder):
    write_wav(folder / "clean" / "3.wav", np.zeros(1600))
    for _ in range(2):  # the second attempt finds the first one's work
        assert "1 of 8 files cannot be used: silent (1: 3)" in problem(config)
    data = open_speech(change(config, leave_out=True))
    assert "1 of 8 files left out: silent (1: 3)" in data.description
    assert len(data.train) + len(data.validation) == 7


def test_files_without_partner_are_named(config, folder):
    (folder / "clean" / "2.wav").unlink()
    (folder / "noisy" / "a" / "b" / "c" / "7.wav").unlink()
    told = problem(config)
    assert "2 files have no partner: noisy/2, clean/a/b/c/7" in told
    assert "no such folder" in problem(change(config, noisy="loud"))
    shutil.copy(folder / "clean" / "1.wav", folder / "clean" / "1.flac")
    assert "two files are called 1" in problem(config)


def test_resampling_on_request(config, folder, tmp_path):
    pytest.importorskip("scipy")
    data = open_speech(change(config, sample_rate=8000, resample=True, length=400))
    pairs = whole(data, "validation")
    assert {len(clean) for clean, _ in pairs.values()} == {800}
    assert (
        SpeechManifest.read(prepare_speech(change(config, sample_rate=8000, resample=True))).tracks["train.clean"].dtype
        == "<f4"
    )
    # One of a pair at another rate is still its partner.
    write_wav(config.path / "noisy" / "0.wav", voice(0, 0.1, 8000), 8000)
    assert len(open_speech(change(config, sample_rate=8000, resample=True)).train) == 6
    write_pair(config.path, "0", 0)
    rounded = open_speech(change(config, sample_rate=8000, resample=True, storage="int16"))
    for name, (clean, _) in whole(rounded, "validation").items():
        assert np.abs(clean - pairs[name][0]).max() <= 0.5 / 32768


def test_it_is_prepared_once_and_again_when_a_file_changes(config, folder, monkeypatch):
    told = []
    first = open_speech(config, progress=lambda done, total: told.append((done, total)))
    assert (told[0], told[-1]) == ((0, 8), (8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(speech_pack, "read_signal", None)
        assert open_speech(config).fingerprint == first.fingerprint
        assert open_speech(change(config, length=400)).fingerprint != first.fingerprint
    moved = shutil.copytree(folder, folder.with_name("moved"))
    assert open_speech(change(config, path=moved)).fingerprint == first.fingerprint
    write_pair(folder, "0", 50)
    assert open_speech(config).fingerprint != first.fingerprint


def test_a_crash_leaves_nothing_half_written_and_the_next_attempt_goes_on(config, tmp_path, monkeypatch):
    expected = open_speech(change(config, cache=tmp_path / "other")).train.fetch(np.arange(6))
    monkeypatch.setattr(speech_pack, "_BLOCK", 2)
    real, read = speech_pack.read_signal, []

    def read_signal(path, wanted):
        if len(read) == 9:
            raise KeyboardInterrupt
        read.append(path)
        return real(path, wanted)

    monkeypatch.setattr(speech_pack, "available_cores", lambda: 1)
    monkeypatch.setattr(speech_pack, "read_signal", read_signal)
    with pytest.raises(KeyboardInterrupt):
        open_speech(config)
    assert not list((tmp_path / "cache").glob("*/manifest.json"))
    again = []
    monkeypatch.setattr(speech_pack, "read_signal", lambda path, wanted: again.append(path) or real(path, wanted))
    data = open_speech(config)
    # Two blocks of two pairs were finished: the other 4 of 8 pairs are read.
    assert len(again) == 8
    assert torch.equal(data.train.fetch(np.arange(6))["noisy"], expected["noisy"])
    assert not list(prepare_speech(config).glob("*.done"))


def test_damage_is_found_and_mended(config):
    folder = prepare_speech(config)
    good = (folder / "train.noisy.bin").read_bytes()
    (folder / "train.noisy.bin").write_bytes(good[:-2])
    assert (prepare_speech(config) / "train.noisy.bin").read_bytes() == good
    (folder / "train.noisy.bin").write_bytes(good[:-2] + b"xx")
    assert (prepare_speech(config, verify=True) / "train.noisy.bin").read_bytes() == good


def test_a_batch_must_not_hold_an_utterance_twice(config):
    data = open_speech(config)
    check_speech_batch(data, 6)
    with pytest.raises(DataError, match=r"train\.batch_size=7"):
        check_speech_batch(data, 7)


def test_voicebank_validates_on_two_speakers(tmp_path):
    pytest.importorskip("scipy")
    for part, speakers in (("trainset_28spk", ("p225", "p226", "p287", "p300")), ("testset", ("p232",))):
        for number, speaker in enumerate(speakers):
            for kind in ("clean", "noisy"):
                # As the archives unpack: NAME/NAME.
                name = f"{kind}_{part}_wav"
                write_wav(tmp_path / name / name / f"{speaker}_001.wav", voice(number, 0.1, 48000), 48000)
    data = open_speech(VoiceBankConfig(path=tmp_path, length=LENGTH, cache=tmp_path / "cache"))
    assert [data.train.utterances.name(n) for n in range(2)] == ["p225_001", "p300_001"]
    assert set(whole(data, "validation")) == {"p226_001", "p287_001"}
    assert {name: len(clean) for name, (clean, _) in whole(data, "test").items()} == {"p232_001": 1600}
    assert data.sample_rate == 16000
    wrong = VoiceBankConfig(path=tmp_path, validation_speakers=("p999",), cache=tmp_path)
    assert "leaves no file for validation" in problem(wrong)


def test_ears_wham_pairs_by_the_name_before_the_snr(tmp_path):
    for number, part in enumerate(("train", "valid", "test")):
        write_pair(tmp_path / part, "p002/00001", number, 0.1, 48000, "p002/00001_-2.5dB")
    data = open_speech(EarsWhamConfig(path=tmp_path, cache=tmp_path / "cache"))
    assert set(whole(data, "test")) == {"p002/00001_-2.5dB"}
    assert np.array_equal(data.whole_pair("test", 0)[0], read_wave(tmp_path / "test/clean/p002/00001.wav")[:, 0])
    assert data.facts.sample_shape == (255 * 384,)


@pytest.fixture
def wsj0(tmp_path):
    for number, name in enumerate(("si_tr_s/011/a", "si_tr_s/012/b", "si_dt_05/050/c", "si_et_05/440/d")):
        write_wav(tmp_path / "csr" / "wav" / f"{name}.wav", voice(number, 0.15))
    return tmp_path / "csr"


def test_wsj0_chime3_is_mixed_alike_each_time_but_cropped_anew(wsj0, tmp_path):
    for channel in (1, 5):
        write_wav(
            tmp_path / "chime" / f"BGD_CAF.CH{channel}.wav", 0.1 * np.random.default_rng(channel).standard_normal(8000)
        )
    config = Wsj0ChimeConfig(wsj0=wsj0, chime3=tmp_path / "chime", length=LENGTH, cache=tmp_path / "cache")
    data = open_speech(config)
    assert set(whole(data, "test")) == {"440/d"}
    noise = read_wave(tmp_path / "chime" / "BGD_CAF.CH1.wav")[:, 0]
    for clean, noisy in whole(data, "validation").values():
        rest = noisy - clean
        snr = 10 * np.log10(np.sum(clean**2) / np.sum(rest**2))
        assert 0 <= snr <= 20
        match = np.correlate(noise, rest, "valid") / (np.linalg.norm(rest) * np.linalg.norm(noise[: len(rest)]))
        assert match.max() > 0.9  # it is a piece of channel 1
    mixture = data.train.utterances.pair(0, None)[1]
    first, later = (data.train.fetch_anew(np.array([0]), np.array([e]), 0)["noisy"][0].numpy() for e in (0, 1))
    windows = np.lib.stride_tricks.sliding_window_view(mixture, LENGTH)
    assert all((windows == crop).all(1).any() for crop in (first, later))
    assert not np.array_equal(first, later)


def test_wsj0_must_be_whole_and_converted(wsj0, tmp_path):
    config = Wsj0ReverbConfig(wsj0=wsj0, cache=tmp_path)
    shutil.rmtree(wsj0 / "wav" / "si_et_05")
    assert "0 folders are called si_et_05" in problem(config)


def test_wsj0_reverb_keeps_the_direct_path_in_place(wsj0, tmp_path):
    pytest.importorskip("pyroomacoustics")
    config = Wsj0ReverbConfig(wsj0=wsj0, length=LENGTH, cache=tmp_path / "cache")
    data = open_speech(config)
    assert data.fingerprint == open_speech(change(config, cache=tmp_path / "again")).fingerprint
    for dry, wet in whole(data, "test").values():
        assert len(dry) == len(wet) > 2400
        assert np.abs(wet).max() == pytest.approx(0.9)
        lags = np.correlate(wet, dry, "full")
        assert abs(int(np.argmax(np.abs(lags))) - (len(dry) - 1)) <= 2
        assert np.sum(wet[-1600:] ** 2) > 10 * np.sum(dry[-1600:] ** 2)
