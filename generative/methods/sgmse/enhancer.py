"""Noisy waves in, enhanced waves out: level, spectrogram, sampler, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generative.method import Batch
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.sgmse.level import SILENCE, peak
from generative.methods.sgmse.noise import StreamNoise
from generative.methods.sgmse.parts import spectrogram_of
from generative.methods.sgmse.sampling import sampled
from generative.methods.sgmse.spectrogram import Spectrogram, pad_frames
from generative.methods.sgmse.windows import Windowed
from generative.methods.sgmse.wrapping import Network
from generative.randomness import Streams


@dataclass(frozen=True)
class EnhancedWave:
    """One file's result.

    Args:
        wave: float32[n] on the CPU, as loud as the noisy one's level says.
        calls: times that the network was asked about it (a long file's windows count as one).
    """

    wave: Tensor
    calls: int


@dataclass(frozen=True)
class Enhancer:
    """Enhances waves of any lengths. A wave's result depends on the wave, the streams and its id, not on its company.

    Args:
        config: of the network and of the sampler (`config.sampling`).
        net: (x_t, y, t) -> complex [B, 1, F, K].
        device: where the network is.
        batch_size: waves, or windows of long ones, in one network call.
    """

    config: SgmseConfig
    net: Network
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 8

    def enhance(self, waves: Sequence[Tensor], ids: Sequence[int], streams: Streams) -> list[EnhancedWave]:
        """Enhanced waves in the order of the noisy ones.

        Waves go together whose spectrograms have the same number of frames after padding: more padding would change
        what the network answers. Silence is left as it is, without a network call.

        Args:
            waves: real [n] each, at least one sample.
            ids: of each wave; its noise depends on it.
            streams: of the noise.
        """
        found: dict[int, EnhancedWave] = {}
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for place, wave in enumerate(waves):
            if wave.abs().max() <= SILENCE:
                found[place] = EnhancedWave(torch.zeros_like(wave, dtype=torch.float32, device="cpu"), 0)
            else:
                frames = self._spectrogram.frames(len(wave))
                alike[-(-frames // self._multiple) * self._multiple].append(place)
        for places in alike.values():
            for start in range(0, len(places), self.batch_size):
                part = places[start : start + self.batch_size]
                results = self._alike([waves[p] for p in part], [ids[p] for p in part], streams)
                found |= zip(part, results, strict=True)
        return [found[place] for place in range(len(waves))]

    @torch.no_grad()
    def _alike(self, waves: Sequence[Tensor], ids: Sequence[int], streams: Streams) -> list[EnhancedWave]:
        """Waves whose padded spectrograms have one shape."""
        loud = [peak(wave[None]) for wave in waves]
        spectra = [self._spectrogram.forward(w[None].float() / p) for w, p in zip(waves, loud, strict=True)]
        padding = self.config.sampling.padding
        y = torch.cat([pad_frames(s, self._multiple, padding) for s in spectra]).to(self.device)
        frames = torch.tensor([s.shape[-1] for s in spectra])
        noise = StreamNoise(streams, torch.tensor(ids), y)
        drawn = sampled(self.config, self._windowed, y, noise, frames)
        # Padding is cut off again: its frames reach into the last samples, where they would be heard.
        estimates = [x[None, ..., :count].cpu() for x, count in zip(drawn.estimate, frames.tolist(), strict=True)]
        limit = self.config.sampling.attenuation_limit
        return [
            EnhancedWave(limited(self._spectrogram.inverse(x, len(wave))[0] * level[0], wave, limit), int(calls))
            for x, wave, level, calls in zip(estimates, waves, loud, drawn.calls, strict=True)
        ]

    @property
    def _spectrogram(self) -> Spectrogram:
        return spectrogram_of(self.config)

    @property
    def _multiple(self) -> int:
        return self.config.multiple

    @property
    def _windowed(self) -> Windowed:
        chosen = self.config.sampling
        return Windowed(self.net, chosen.window, chosen.overlap, self.batch_size)


def limited(estimate: Tensor, noisy: Tensor, limit: float | None) -> Tensor:
    """(1 - r) estimate + r noisy with r = 10^(-limit / 20): at most `limit` dB are taken away.

    Args:
        estimate: float32[n] on the CPU.
        noisy: real [n].
        limit: dB, at least 0; None: the estimate alone.
    """
    if limit is None:
        return estimate
    share = 10 ** (-limit / 20)
    return (1 - share) * estimate + share * noisy.to(estimate)


@dataclass(frozen=True)
class SpeechSampler:
    """The enhancer as `generative.method.Sampler`: all waves of one length."""

    enhancer: Enhancer

    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """Enhanced float32[B, n] of condition["noisy"] float[B, n] by condition["sample_id"] int64[B]."""
        found = self.enhancer.enhance(list(condition["noisy"]), condition["sample_id"].tolist(), streams)
        return torch.stack([one.wave for one in found])
