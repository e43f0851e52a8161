import math
from itertools import pairwise
from threading import Barrier, Thread

import pytest
import torch

from evaluation.infill import infill_check, middle_span
from evaluation.text import evaluate_likelihood, evenly_spaced, per_token, score_windows
from generative.errors import DataError
from generative.randomness import Streams

TOKENS = 8


class Windows:
    """Source whose window i holds the tokens i, i + 1, ..."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def fetch(self, indices):
        return {"tokens": torch.as_tensor(indices)[:, None] + torch.arange(TOKENS + 1)}


def noisy_nats(batch, streams):
    """Depends on the tokens and on the noise of each window."""
    return batch["tokens"][:, 0].double() + streams.uniform("t", batch["sample_id"], dtype=torch.float64)


class Ranks:
    """Collectives of threads in one process."""

    def __init__(self, world):
        self.world, self.barrier, self.parts = world, Barrier(world), [None] * world

    def member(self, rank):
        outer = self

        class Member:
            world = outer.world

            def __init__(self):
                self.rank = rank

            def gather(self, tensor):
                outer.parts[rank] = tensor
                outer.barrier.wait(20)
                return torch.cat(outer.parts)

        return Member()


def on_ranks(world, function):
    ranks, results = Ranks(world), [None] * world

    def work(rank):
        results[rank] = function(ranks.member(rank))

    threads = [Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def evaluate(**changes):
    settings = {"batch_size": 4, "streams": Streams(3), "tokens_per_window": TOKENS, "bytes_per_token": 2.0}
    return evaluate_likelihood(noisy_nats, Windows(101), 13, **(settings | changes))


@pytest.mark.parametrize("batch_size", [1, 3, 13, 100])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_the_figure_does_not_depend_on_batch_size_or_ranks(batch_size, world):
    expected = evaluate()
    assert on_ranks(world, lambda c: evaluate(batch_size=batch_size, collectives=c)) == [expected] * world


def test_every_rank_makes_the_same_number_of_calls_of_one_shape():
    calls = {}

    def score(batch, rank):
        calls.setdefault(rank, []).append(len(batch["valid"]))
        return batch["sample_id"].double()

    on_ranks(4, lambda c: score_windows(lambda b: score(b, c.rank), Windows(50), 9, batch_size=2, collectives=c))
    assert set(calls) == {0, 1, 2, 3}
    assert {tuple(shapes) for shapes in calls.values()} == {(2, 2)}


def test_more_ranks_than_windows_still_give_every_window_once():
    for scores in on_ranks(
        4, lambda c: score_windows(lambda b: b["sample_id"].double(), Windows(2), 9, batch_size=3, collectives=c)
    ):
        assert scores.tolist() == [0, 1]


def test_units_and_error():
    nats = torch.arange(13, dtype=torch.float64)
    likelihood = evaluate_likelihood(
        lambda batch, _: nats[batch["position"]],
        Windows(13),
        13,
        batch_size=5,
        streams=Streams(0),
        tokens_per_window=TOKENS,
        bytes_per_token=2.0,
        bound="upper",
    )
    per_token, per_byte = likelihood.nats_per_token, likelihood.bits_per_byte
    assert per_token.value == pytest.approx(6 / TOKENS)
    assert per_token.stderr == pytest.approx(float(nats.std()) / math.sqrt(13) / TOKENS)
    assert per_byte.value == pytest.approx(6 / TOKENS / math.log(2) / 2)
    assert (per_token.n, per_token.unit, per_byte.unit, per_byte.bound) == (13, "nats/token", "bits/byte", "upper")


@pytest.mark.parametrize(("length", "count"), [(10, 10), (10, 3), (7, 100), (1, 1), (10**12, 5)])
def test_windows_are_spread_evenly_and_never_picked_twice(length, count):
    picks = evenly_spaced(length, count).tolist()
    assert len(set(picks)) == min(length, count)
    assert picks == sorted(picks)
    assert picks[0] >= 0
    assert picks[-1] < length
    gaps = [b - a for a, b in pairwise(picks)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("length", "count"), [(0, 4), (4, 0)])
def test_nothing_to_evaluate_is_said(length, count):
    with pytest.raises(DataError, match="held-out"):
        evenly_spaced(length, count)


def test_a_batch_of_none_is_refused():
    with pytest.raises(DataError, match="batch size of the evaluation is 0"):
        evaluate(batch_size=0)


def test_the_middle_span_is_in_the_middle():
    assert middle_span(2, 6).tolist() == [False, False, True, True, False, False]
    for length in (0, 5, 6):
        with pytest.raises(DataError):
            middle_span(length, 6)


def check_infilling(score):
    return infill_check(
        score, Windows(40), 10, span=2, batch_size=3, streams=Streams(1), tokens_per_window=TOKENS, bound="upper"
    )


def test_both_conditions_see_their_sides_and_share_their_noise():
    seen = []

    def score(batch, visible, span, streams):
        seen.append((visible[0].int().tolist(), span[0].int().tolist()))
        # One nat for each hidden token beside the span, and noise that must cancel in the difference.
        return (~visible & ~span).sum(1) + 100 * streams.normal("mask", batch["sample_id"], dtype=torch.float64)

    result = check_infilling(score)
    assert seen[0] == ([1, 1, 1, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0])
    assert seen[1] == ([1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0])
    assert result.gain.value == pytest.approx(3 / 2)
    assert result.gain.stderr == pytest.approx(0, abs=1e-9)
    assert result.left_only.stderr > 1
    assert result.gain.value == pytest.approx(result.left_only.value - result.both_sides.value)
    assert (result.both_sides.bound, result.gain.bound) == ("upper", None)


def test_a_model_that_ignores_the_right_side_gains_nothing():
    result = check_infilling(lambda batch, visible, span, streams: batch["tokens"][:, 0].double())
    assert result.gain.value == 0


def test_windows_of_unequal_numbers_of_tokens_weigh_as_their_tokens_do():
    counts = torch.tensor([2.0, 10.0, 4.0], dtype=torch.float64)
    even = per_token(3.0 * counts, counts, 2.0, "").nats_per_token
    assert (even.value, even.stderr) == (pytest.approx(3.0), pytest.approx(0.0, abs=1e-12))
    nats = torch.tensor([1.0, 30.0, 9.0], dtype=torch.float64)
    found = per_token(nats, counts, 2.0, "").nats_per_token
    assert found.value == pytest.approx(40 / 16)
    residuals = nats - 2.5 * counts
    assert found.stderr == pytest.approx(float((residuals.square().sum() / 2 / 3).sqrt()) / float(counts.mean()))
    alike = per_token(nats, torch.full((3,), 5), 2.0, "").nats_per_token
    assert alike == per_token(nats, 5, 2.0, "").nats_per_token
