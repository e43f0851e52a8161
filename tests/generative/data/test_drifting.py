"""Made text of several periods."""

from __future__ import annotations

import itertools

import pytest

from generative.data.config import DriftingTextConfig
from generative.data.drifting import WORDS, drifting_files, made_documents, spellings
from generative.data.text import open_text


def test_a_share_of_the_words_is_new():
    start = spellings(DriftingTextConfig())
    assert len(set(start)) == WORDS
    for period, new in ((0.0, 0), (0.33, 66), (1.0, WORDS)):
        later = spellings(DriftingTextConfig(period=period))
        assert sum(a != b for a, b in zip(start, later, strict=True)) == new
        assert len(set(later)) == WORDS
    assert spellings(DriftingTextConfig(seed=1)) != start


def test_grammar_stays_and_sentences_differ():
    """Word numbers follow one another in the same way in all periods."""

    def followers(period):
        config = DriftingTextConfig(period=period, documents=60)
        number = {word: i for i, word in enumerate(spellings(config))}
        pairs = set()
        for text in made_documents(config):
            for sentence in text.lower().strip().split("."):
                walk = [number[word] for word in sentence.split()]
                pairs |= set(itertools.pairwise(walk))
        return pairs

    early, late = followers(0.0), followers(1.0)
    assert len(early | late) <= 8 * WORDS
    assert len(early & late) > 0.6 * len(early)
    assert list(made_documents(DriftingTextConfig(documents=2))) == list(
        made_documents(DriftingTextConfig(documents=2))
    )


def test_it_opens_like_files(tmp_path):
    config = DriftingTextConfig(documents=4, sequence_length=16, cache=tmp_path, period=0.5)
    assert drifting_files(config).path == drifting_files(config).path
    data = open_text(config)
    assert data.facts.vocab_size == 257
    assert len(data.validation) > 4
    other = open_text(config.model_copy(update={"period": 0.0}))
    assert other.fingerprint != data.fingerprint
    with pytest.raises(ValueError):
        DriftingTextConfig(period=1.5)
