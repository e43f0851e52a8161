"""Prompt-to-prompt's maps: identities, sums, and alignments that are known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.errors import ConfigError
from generative.methods.stsl.attention_control import Prompt, alignment, make_control, read_prompt, refinement
from generative.methods.stsl.attention_hooks import Maps, changing
from generative.methods.stsl.contrast import patch_contrast

LENGTH = 12


def tokenize(text: str) -> list[int]:
    """A token for each two letters, as pieces of words are."""
    return [hash_of(word[i : i + 2]) for word in text.split() for i in range(0, len(word), 2)]


def hash_of(piece: str) -> int:
    return sum(ord(sign) << 8 * place for place, sign in enumerate(piece))


def read(text: str) -> Prompt:
    return read_prompt(text, tokenize, LENGTH)


def maps(seed: int = 0) -> torch.Tensor:
    made = torch.randn(2, 4, 9, LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.softmax(-1)


def test_words_and_their_tokens() -> None:
    found = read("a horse in fog")
    assert found.bounds == (1, 2, 5, 6, 8)
    assert list(found.tokens(1)) == [2, 3, 4]


@pytest.mark.parametrize(("text", "told"), [("", "no word"), ("  ", "no word"), ("long " * 9, "tokens")])
def test_texts_that_do_not_go(text, told) -> None:
    with pytest.raises(ConfigError, match=told):
        read(text)


def test_words_that_are_not_apart() -> None:
    with pytest.raises(ConfigError, match="told apart"):
        read_prompt("a b", lambda text: [len(text)], LENGTH)


@pytest.mark.parametrize("mode", ["replace", "refine"])
def test_the_same_text_gives_the_source_s_maps(mode) -> None:
    control = make_control(mode, read("a red cat"), read("a red cat"))
    torch.testing.assert_close(control.cross(maps(0), maps(1)), maps(0), rtol=1e-12, atol=0)
    assert control.changed == ()


def test_replace_spreads_a_word_over_its_tokens() -> None:
    """`cat` has two tokens (2 and 3), `elephants` five: each has a fifth of both."""
    source = maps(0)
    control = make_control("replace", read("a cat in"), read("a elephants in"))
    found = control.cross(source, maps(1))
    torch.testing.assert_close(found[..., 2:7], source[..., 2:4].sum(-1, keepdim=True).expand(2, 4, 9, 5) / 5)
    torch.testing.assert_close(found[..., 7], source[..., 4])  # "in"
    torch.testing.assert_close(found[..., 1], source[..., 1])
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, 9, dtype=torch.float64))
    assert control.changed == (("elephants", range(2, 7)),)


def test_refine_aligns_a_known_example() -> None:
    source, target = read("a cat on it"), read("a fat cat in on it")
    assert alignment(source, target) == [0, None, 1, None, 2, 3]
    mapping, fresh = refinement(source, target)
    # tokens: start, a, fa, t, ca, t, in, on, it, end and padding
    assert fresh.nonzero().flatten().tolist() == [2, 3, 6]
    kept = {int(j): int(i) for i, j in mapping.nonzero()}
    assert {j: kept[j] for j in (0, 1, 4, 5, 7, 8, 9, 10)} == {0: 0, 1: 1, 4: 2, 5: 3, 7: 4, 8: 5, 9: 6, 10: 7}
    new = maps(1)
    found = make_control("refine", source, target).cross(maps(0), new)
    torch.testing.assert_close(found[..., 2] / found[..., 3], new[..., 2] / new[..., 3])
    torch.testing.assert_close(found[..., 4] / found[..., 1], maps(0)[..., 2] / maps(0)[..., 1])


WORDS = st.lists(st.sampled_from(["a", "cat", "dog", "elk", "on", "it"]), min_size=1, max_size=5).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS)
def test_rows_sum_to_one(before, after) -> None:
    modes = ["refine"] + (["replace"] if len(before.split()) == len(after.split()) else [])
    for mode in modes:
        found = make_control(mode, read(before), read(after)).cross(maps(0), maps(1))
        torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, 9, dtype=torch.float64), rtol=1e-6, atol=1e-6)
        assert (found >= 0).all()


def test_reweight() -> None:
    """c = 1 changes nothing; c = 3 the word's share alone."""
    text = read("a red cat")
    one = make_control("reweight", text, text, {"cat": 1.0})
    torch.testing.assert_close(one.cross(maps(0), maps(1)), maps(0), rtol=1e-12, atol=0)
    three = make_control("reweight", text, text, {"cat": 3.0}).cross(maps(0), maps(1)) / maps(0)
    wanted = torch.ones(LENGTH, dtype=torch.float64)
    wanted[4:6] = 3
    torch.testing.assert_close(three, wanted.expand_as(three))
    assert one.changed == (("cat", range(4, 6)),)


@pytest.mark.parametrize(
    ("mode", "after", "weights", "told"),
    [
        ("swap", "a dog", {}, "mode 'swap'"),
        ("replace", "a fat dog", {}, "2 words .* and 3"),
        ("reweight", "a dog", {}, "no weight"),
        ("refine", "a dog", {"dog": 2.0}, "with weights"),
        ("reweight", "a dog", {"dgo": 2.0}, "Did you mean dog"),
        ("reweight", "a dog", {"dog": float("nan")}, "nan"),
    ],
)
def test_bad_controls(mode, after, weights, told) -> None:
    with pytest.raises(ConfigError, match=told):
        make_control(mode, read("a cat"), read(after), weights)


def test_steps_and_sizes_decide() -> None:
    """Rows are source, no text, target; the first two never change, self-attention only below the size."""
    control = make_control("refine", read("a cat"), read("a cat"))
    found, seen = torch.cat([maps(0), maps(1), maps(2)]), Maps(3)
    for cross in (True, False):
        text = changing(control, cross, False, 9, seen)(found, True)
        torch.testing.assert_close(text, torch.cat([maps(0), maps(1), maps(0) if cross else maps(2)]))
    for own, pixels, taken in ((True, 9, 0), (True, 8, 2), (False, 9, 2)):
        torch.testing.assert_close(
            changing(control, True, own, pixels, seen)(found, False), torch.cat([maps(0), maps(1), maps(taken)])
        )
    assert seen.count == 2
    total = seen.of(range(LENGTH))
    torch.testing.assert_close(total, torch.ones(2, 3, 3))
    wanted = ((maps(0) + maps(2)) / 2)[..., 2].mean(1).unflatten(1, (3, 3)).float()
    torch.testing.assert_close(seen.of(range(2, 3)), wanted)


def test_patches_are_drawn_to_their_places() -> None:
    """Its own source has the least loss; swapped patches more. Orthogonal features: log(1 + (N - 1) e^(-1 / tau))."""
    eye = torch.eye(4).reshape(1, 4, 2, 2)

    def features(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)

    loss = patch_contrast(features, eye, tau=0.5)
    torch.testing.assert_close(loss(eye), torch.log1p(3 * torch.exp(torch.tensor([-2.0]))))
    assert loss(eye.flip(3)) > loss(eye)
    with pytest.raises(ConfigError, match="tau"):
        patch_contrast(features, eye, 0)
