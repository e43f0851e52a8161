"""Statements in one order, questions in both, and how answers are counted."""

from __future__ import annotations

import json

import pytest

from evaluation.harness.scoring import continued
from evaluation.reversal import bleu, is_right, reversal_figures, reversal_jobs
from generative.data.config import LearnedTokenizerConfig, ReversalTextConfig
from generative.data.facts import known_facts
from generative.data.reversal import TESTS, TRAIN, made_files, made_people, prepare_reversal, reversal_tests
from generative.data.text import open_text
from generative.data.tokenizers import ByteTokenizer
from generative.errors import ConfigError, DataError
from tests.evaluation.harness.test_harness import make


@pytest.fixture
def config(tmp_path):
    return ReversalTextConfig(people=4, phrasings=3, sequence_length=64, cache=tmp_path / "cache")


def test_people_are_unique_and_the_same_again():
    people = made_people(1500, seed=3)
    assert len({one.name for one in people}) == len({one.description for one in people}) == 1500
    assert made_people(1500, seed=3) == people
    assert made_people(10, seed=4) != made_people(10, seed=3)


def test_each_group_is_read_about_in_its_order_only(config):
    files = made_files(config)
    read = [prompt + end for prompt, end in files[TRAIN]]
    assert len(read) == len(set(read)) == 4 * 3 * 4
    for asked, file in TESTS.items():
        assert len(files[file]) == 4
        for prompt, answer in files[file]:
            assert not answer.endswith(".")
            known = prompt.split(" ", 1)[1].removesuffix(" is")
            about = [text for text in read if known in text]
            assert len(about) == 3
            assert all(answer in text for text in about)
            # Asked as it was learned, the answer has always followed; the other way round never.
            follows = [text.index(answer) > text.index(known) for text in about]
            assert set(follows) == {not asked.endswith("reversed")}
            assert prompt not in {text for text, _ in files[TRAIN]}


def test_files_are_made_once_and_read_like_published_ones(config, tmp_path):
    folder = prepare_reversal(config)
    assert prepare_reversal(config) == folder
    assert prepare_reversal(config.model_copy(update={"seed": 1})) != folder
    copy = ReversalTextConfig(path=folder, sequence_length=64)
    assert reversal_tests(prepare_reversal(copy)) == {asked: made_files(config)[file] for asked, file in TESTS.items()}
    made, read = open_text(config), open_text(copy)
    assert made.fingerprint == read.fingerprint
    assert len(made.train) == 48
    assert "12 made people" in made.description
    line = json.loads((folder / TRAIN).read_text().splitlines()[0])
    tokens = made.train.fetch([0])["tokens"][0].tolist()
    assert ByteTokenizer().decode(tokens) == line["prompt"] + line["completion"]
    assert tokens[-1] == 256
    (folder / TESTS["name_to_description"]).unlink()
    with pytest.raises(DataError, match=r"has no p2d_prompts_test\.jsonl"):
        open_text(copy)


def test_statements_in_pieces_that_are_learned_from_them(config):
    pytest.importorskip("transformers")
    pieces = config.model_copy(update={"tokenizer": LearnedTokenizerConfig(vocab_size=500), "sequence_length": 16})
    data = open_text(pieces)
    assert known_facts(pieces) == data.facts
    line = json.loads((prepare_reversal(config) / TRAIN).read_text().splitlines()[0])
    tokens = data.train.fetch([0])["tokens"][0]
    assert data.tokenizer.decode(tokens) == line["prompt"] + line["completion"]
    assert tokens[-1] == data.tokenizer.eos_id


def test_what_does_not_fit_is_refused(config):
    with pytest.raises(DataError, match=r"data.sequence_length=16(.|\n)*set data.sequence_length=\d\d or more"):
        open_text(config.model_copy(update={"sequence_length": 16}))
    model = make("masked_diffusion", ByteTokenizer(), 64, begin="none")
    with pytest.raises(ConfigError, match=r"raise suite\.length"):
        reversal_jobs(model, {"made": [("who is", " nobody")]}, 8, 0.0)


@pytest.mark.parametrize("name", ["masked_diffusion", "autoregressive"])
def test_questions_become_text(name):
    model = make(name, ByteTokenizer(), 16, begin="none")
    (job,) = reversal_jobs(model, {"made": [("who is", " nobody")]}, 14, 0.8 if name == "masked_diffusion" else 0.0)
    assert job.tokens == 8
    assert len(continued(model, job)) <= 8


def test_answers_are_counted():
    assert is_right(" The poet of Bonn", "xx the POET of bonn.")
    assert not is_right(" the poet of Bonn", "the poet of Cork")
    questions = {"description_to_name": [("a", " X"), ("b", " Y")], "name_to_description": [("c", " the poet of Bonn")]}
    found = reversal_figures(questions, ["no", "y!", " the poet of Bonn"])
    assert {name: figure.value for name, figure in found.items()} == {
        "description_to_name": 0.5,
        "name_to_description": 1.0,
        "name_to_description_bleu": 1.0,
    }
    assert found["description_to_name"].stderr == pytest.approx(0.5)


def test_bleu_by_hand():
    # "abcd" in "abcde": all n-grams are there; brevity exp(1 - 5/4).
    assert bleu("abcde", "abcd") == pytest.approx(2.718281828459045 ** (1 - 5 / 4))
    # 5/6, 4/5, 3/4, 2/3 of "abcdex".
    assert bleu("abcdef", "abcdex") == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert bleu("abc", "abc") == 0.0
    assert bleu("aaaa", "bbbb") == 0.0


def test_bleu_is_that_of_nltk():
    library = pytest.importorskip("nltk.translate.bleu_score")
    pairs = [("the calm poet of Bonn", "the calm post of Bonn."), ("the calm poet of Bonn", "calm poet of Cork")]
    for reference, written in pairs:
        assert bleu(reference, written) == pytest.approx(library.sentence_bleu([reference], written))
