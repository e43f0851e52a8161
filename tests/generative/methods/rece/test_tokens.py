from __future__ import annotations

import pytest
import torch

from generative.methods.rece.tokens import Pairs, Prompt, Segment, aligned, pair, preserved


def numbered(valid: int, length: int = 8, masked: bool = False) -> Prompt:
    """Each row holds its own place."""
    rows = torch.arange(length, dtype=torch.float64)[:, None].repeat(1, 2)
    return Prompt("", (Segment(rows, valid, masked),))


def places(rows: torch.Tensor) -> list[int]:
    return rows[:, 0].int().tolist()


@pytest.mark.parametrize(
    ("old", "new", "from_old", "from_new"),
    [
        (3, 3, range(1, 8), range(1, 8)),
        (4, 3, range(2, 8), range(1, 7)),
        (3, 5, range(1, 6), range(3, 8)),
        (3, 2, range(1, 8), range(7)),  # an empty guide: its start row stands beside the concept's last content token
    ],
)
def test_suffix(old: int, new: int, from_old: range, from_new: range) -> None:
    found = pair("suffix", numbered(old), numbered(new))
    assert (places(found.old), places(found.new)) == (list(from_old), list(from_new))


def test_whole_and_last() -> None:
    whole = pair("whole", numbered(4), numbered(2))
    assert places(whole.old) == places(whole.new) == list(range(8))
    last = pair("last", numbered(4), numbered(2))
    assert (places(last.old), places(last.new)) == ([2], [0])
    assert places(preserved("last", numbered(4))) == [2]
    assert places(preserved("suffix", numbered(4))) == list(range(8))


def test_of_masked_padding_one_row_counts() -> None:
    found = pair("whole", numbered(4, masked=True), numbered(2, masked=True))
    assert places(found.old) == places(found.new) == list(range(5))
    found = pair("suffix", numbered(4, masked=True), numbered(3, masked=True))
    assert (places(found.old), places(found.new)) == ([2, 3, 4], [1, 2, 3])
    assert places(preserved("whole", numbered(4, masked=True))) == list(range(5))
    assert places(preserved("whole", numbered(8, masked=True))) == list(range(8))


def test_segments_are_paired_apart() -> None:
    two = Prompt("", (*numbered(3).segments, *numbered(4).segments))
    other = Prompt("", (*numbered(4).segments, *numbered(3).segments))
    assert places(pair("last", two, other).old) == [1, 2]
    assert places(pair("last", two, other).new) == [2, 1]
    assert len(pair("suffix", two, other).old) == 12


def test_merged_rows_give_the_same_sums() -> None:
    old = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    new = torch.tensor([[0.0, 1.0], [5.0, 6.0], [0.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    merged = Pairs(old, new).merged()
    assert len(merged.old) == 3
    torch.testing.assert_close(merged.old.T @ merged.old, old.T @ old, rtol=1e-15, atol=0)
    torch.testing.assert_close(merged.new.T @ merged.old, new.T @ old, rtol=1e-15, atol=0)
    assert len(Pairs(old, new).merged(once=True).old) == 3
    assert set(Pairs(old, new).merged(once=True).old.flatten().tolist()) == {1, 2, 3, 4}


def test_aligned_of_three() -> None:
    found = aligned("suffix", [numbered(3), numbered(5), numbered(4)])
    assert [places(rows)[0] for rows in found] == [1, 3, 2]
    assert {len(rows) for rows in found} == {5}
