from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.errors import ConfigError, DataError
from generative.methods.sgmse.level import level, peak
from generative.methods.sgmse.spectrogram import TINY, Spectrogram, pad_frames

KINDS = {
    "e05": Spectrogram(),
    "log": Spectrogram(transform="log"),
    "none": Spectrogram(transform="none"),
    "sqrthann": Spectrogram(window="sqrthann"),
    "e0667_48k": Spectrogram(1534, 384, exponent=0.667, factor=0.065),
}


@pytest.mark.parametrize("kind", KINDS)
def test_published_transforms(kind, arrays, near) -> None:
    golden, spectrogram = arrays("stft"), KINDS[kind]
    wave, wanted = golden["wave"], golden[f"fwd_{kind}"]
    found = spectrogram.forward(wave)
    thinned = found[:, 0, :: 1 if kind in ("e05", "log") else 4]
    near(thinned, wanted, 1e-5)
    near(spectrogram.inverse(found, wave.shape[1]), golden[f"istft_{kind}"], 1e-4)
    near(spectrogram.inverse(found, wave.shape[1]), wave, 1e-5)


def test_published_stft_and_window(arrays, near) -> None:
    golden = arrays("stft")
    near(Spectrogram().stft(golden["wave"]), golden["stft_510_128_hann"], 1e-5)
    near(Spectrogram()._window(golden["wave"]), golden["window_hann_510"], 1e-6)


@pytest.mark.parametrize("mode", ["zero", "reflection", "replication"])
def test_published_padding(mode, arrays) -> None:
    golden = arrays("stft")
    assert torch.equal(pad_frames(golden["pad_in"], 64, mode), golden[f"pad_{mode}"])
    whole = golden["pad_zero"]
    assert pad_frames(whole, 64, mode) is whole


@pytest.mark.parametrize("frames", [1, 5, 32, 33])
def test_short_spectrograms_repeat_their_last_frame_where_reflection_cannot(frames) -> None:
    spectrogram = torch.arange(frames, dtype=torch.float64).expand(1, 1, 2, frames) + 0j
    padded = pad_frames(spectrogram, 64, "reflection")
    assert padded.shape[-1] == 64
    added = padded[0, 0, 0, frames:].real
    wanted = (
        torch.full((64 - frames,), frames - 1.0) if frames < 33 else torch.arange(frames - 2, -1, -1)[: 64 - frames]
    )
    assert torch.equal(added, wanted.double())


@given(
    transform=st.sampled_from(["exponent", "log", "none"]),
    exponent=st.floats(0.3, 1.0),
    factor=st.floats(0.01, 3.0),
    magnitude=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=8),
    phase=st.floats(-3.2, 3.2),
)
def test_compression_round_trip(transform, exponent, factor, magnitude, phase) -> None:
    spectrogram = Spectrogram(transform=transform, exponent=exponent, factor=factor)
    values = torch.polar(torch.tensor(magnitude, dtype=torch.float64), torch.full((len(magnitude),), phase).double())
    compressed = spectrogram.compress(values)
    # The definition, in polar form.
    law = {"exponent": lambda m: factor * m**exponent, "log": lambda m: factor * m.log1p(), "none": lambda m: m}
    wanted = torch.polar(law[transform](values.abs()), values.angle())
    # Below TINY a magnitude is compressed to less than its law says, at most by the law of TINY.
    torch.testing.assert_close(compressed, wanted, rtol=1e-9, atol=factor * TINY**exponent)
    torch.testing.assert_close(spectrogram.expand(compressed), values, rtol=1e-9, atol=1e-11)


@given(samples=st.integers(1, 700), n_fft=st.sampled_from([16, 62, 254]), quarter=st.booleans())
def test_waves_of_any_length_come_back(samples, n_fft, quarter) -> None:
    spectrogram = Spectrogram(n_fft, n_fft // 4 if quarter else n_fft // 2, factor=0.3)
    wave = torch.linspace(0, 40, samples).double().cos()[None] * 0.7
    compressed = spectrogram.forward(wave)
    assert compressed.shape == (1, 1, spectrogram.bins, spectrogram.frames(samples))
    torch.testing.assert_close(spectrogram.inverse(compressed, samples), wave, rtol=0, atol=1e-7)


@pytest.mark.parametrize("exponent", [0.5, 0.667, 1.0])
@pytest.mark.parametrize("transform", ["exponent", "log", "none"])
def test_gradients_are_finite_at_zero(transform, exponent) -> None:
    spectrogram = Spectrogram(16, 4, transform=transform, exponent=exponent)
    compressed = torch.zeros(1, 1, 9, 4, dtype=torch.complex64, requires_grad=True)
    (spectrogram.inverse(compressed, 12) - 1).square().sum().backward()
    assert torch.view_as_real(compressed.grad).isfinite().all()


def test_wrong_settings_and_empty_waves() -> None:
    for wrong in ({"n_fft": 511}, {"hop": 400}, {"exponent": 0.0}, {"factor": 0.0}):
        with pytest.raises(ConfigError, match="="):
            Spectrogram(**wrong)
    with pytest.raises(DataError, match="without samples"):
        Spectrogram().forward(torch.zeros(1, 0))


def test_levels() -> None:
    clean = torch.tensor([[0.1, -0.2], [0.0, 0.0], [0.0, 1e-4]])
    noisy = torch.tensor([[0.5, -0.8], [0.4, 0.0], [-0.6, 0.1]])
    assert torch.equal(level(clean, noisy), torch.tensor([[0.8], [0.4], [0.6]]))
    # In pauses, silent or nearly so, the clean wave has no level.
    assert torch.equal(level(clean, noisy, "clean"), torch.tensor([[0.2], [0.4], [0.6]]))
    assert torch.equal(level(clean, noisy, "not"), torch.ones(3, 1))
    assert torch.equal(peak(torch.zeros(1, 3)), torch.ones(1, 1))
