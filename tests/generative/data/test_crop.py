from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.data.crop import centre_start, crop, random_starts, samples_for
from generative.randomness import Streams


def test_published_crop_length() -> None:
    assert samples_for(256, 128) == 32640


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=6), target=st.integers(1, 300))
def test_crops_are_inside_and_short_waves_stand_in_the_middle(lengths, target) -> None:
    starts = random_starts(Streams(5), list(range(len(lengths))), torch.tensor(lengths), target)
    for length, start in zip(lengths, starts.tolist(), strict=True):
        wave = torch.arange(1.0, length + 1)
        part = crop(wave, start, target)
        assert len(part) == target
        if length >= target:
            assert part[0] == start + 1
            assert part[-1] == start + target
        else:
            left = (target - length) // 2
            assert torch.equal(part[left : left + length], wave)
            assert part.sum() == wave.sum()


def test_starts_depend_on_the_sample_alone_and_spread_evenly() -> None:
    lengths, streams = torch.full((2000,), 1100), Streams(1, 7)
    starts = random_starts(streams, torch.arange(2000), lengths, 1000)
    assert torch.equal(starts[5:9], random_starts(streams, torch.arange(5, 9), lengths[5:9], 1000))
    assert starts.min() == 0
    assert starts.max() == 99
    assert abs(starts.double().mean().item() - 49.5) < 3


def test_validation_takes_the_middle() -> None:
    assert centre_start(101, 50) == 25
    assert centre_start(10, 50) == 0
