"""Text -> ids -> text, one visible character a token, saved and read back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.data.config import (
    BytesTokenizerConfig,
    CharactersTokenizerConfig,
    HuggingFaceTokenizerConfig,
    LearnedTokenizerConfig,
)
from generative.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    learned_tokenizer,
    load_tokenizer,
    open_tokenizer,
)
from generative.errors import ConfigError, DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT)
def test_bytes_round_trip(text):
    ids = ByteTokenizer().encode(text)
    assert ids.tolist() == list(text.encode())
    assert ByteTokenizer().decode(ids) == text


@given(TEXT)
def test_characters_round_trip(text):
    tokenizer = CharacterTokenizer(text)
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == len(text)


@given(st.lists(st.integers(0, 400), max_size=30))
def test_any_ids_are_displayed_with_one_character_each(ids):
    for tokenizer in (ByteTokenizer(), CharacterTokenizer("ab\n c\u200b\U0001f600")):
        for given_ids in (ids, np.array(ids, dtype=np.int64), torch.tensor(ids, dtype=torch.int64)):
            shown = tokenizer.display(given_ids, mask_id=320)
            assert len(shown) == len(ids)
            assert shown.isprintable()
            assert [c == "▁" for c in shown] == [i == 320 for i in ids]
        assert isinstance(tokenizer.decode(ids), str)


def test_bytes_show_end_newline_and_mask():
    assert ByteTokenizer().display([104, 105, 10, 256, 320, 300, 200], mask_id=320) == "hi↵¶▁�▫"


def test_characters_are_sorted_and_unknown_ones_refused():
    tokenizer = CharacterTokenizer("banana")
    assert tokenizer.encode("nab").tolist() == [2, 0, 1]
    with pytest.raises(DataError, match="'x'"):
        tokenizer.encode("bax")
    with pytest.raises(DataError, match="'c'"):
        tokenizer.encode("c")


def test_replacement_character_stands_for_unknown_ones():
    tokenizer = CharacterTokenizer("ab\ufffd")
    assert tokenizer.decode(tokenizer.encode("axb")) == "a\ufffdb"


def test_saved_tokenizers_are_read_back(tmp_path):
    for tokenizer in (ByteTokenizer(), CharacterTokenizer("zürich\n")):
        tokenizer.save(tmp_path)
        again = load_tokenizer(tmp_path)
        assert (again.name, again.vocab_size, again.eos_id) == (tokenizer.name, tokenizer.vocab_size, tokenizer.eos_id)
        assert again.encode("rich").tolist() == tokenizer.encode("rich").tolist()


def test_open_tokenizer():
    assert open_tokenizer(BytesTokenizerConfig()).vocab_size == 257
    assert open_tokenizer(CharactersTokenizerConfig()) is None


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"name": "bites"}'])
def test_damaged_or_unknown_tokenizer_files_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "generative_tokenizer.json").write_text(content)
    with pytest.raises((DataError, ConfigError), match="tokenizer"):
        load_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def wordpieces(tmp_path_factory):
    """A folder with a small byte-level BPE tokenizer in the Hugging Face layout."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(["the cat sat on the mat, naïve " * 20], vocab_size=300, special_tokens=["</s>"])
    folder = tmp_path_factory.mktemp("bpe")
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="</s>").save_pretrained(folder)
    return folder


def test_hugging_face_tokenizer_of_a_folder(wordpieces, tmp_path):
    tokenizer = open_tokenizer(HuggingFaceTokenizerConfig(id=str(wordpieces)))
    ids = tokenizer.encode("the naïve cat")
    assert tokenizer.decode(ids) == "the naïve cat"
    assert tokenizer.decode([*ids.tolist(), tokenizer.eos_id, tokenizer.vocab_size + 7]) == "the naïve cat"
    assert tokenizer.eos_id not in ids
    assert ids.max() < tokenizer.vocab_size
    assert len(ids) < len("the naïve cat")
    assert len(tokenizer.display([*ids.tolist(), tokenizer.eos_id, 999], mask_id=999)) == len(ids) + 2
    assert tokenizer.display([tokenizer.eos_id, 999], mask_id=999) == "¶▁"
    shown = tokenizer.readable([999, 999, *ids.tolist(), tokenizer.eos_id, 1000], mask_id=999)
    assert shown == "▁▁the naïve cat¶�"
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode("on the mat").tolist() == tokenizer.encode("on the mat").tolist()
    assert again.eos_id == tokenizer.eos_id


def test_a_learned_tokenizer_knows_its_text_and_writes_any(tmp_path):
    pytest.importorskip("transformers")
    config, texts = LearnedTokenizerConfig(vocab_size=270), ["the cat sat on the mat", "the hat of the cat"] * 5
    tokenizer = learned_tokenizer(config, texts)
    assert tokenizer.vocab_size == 270
    assert tokenizer.eos_id == 0
    assert learned_tokenizer(config, texts).tokenizer.get_vocab() == tokenizer.tokenizer.get_vocab()
    assert len(tokenizer.encode("the cat")) == 2
    assert tokenizer.decode(tokenizer.encode("naïve ▁ 数")) == "naïve ▁ 数"
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode("the mat").tolist() == tokenizer.encode("the mat").tolist()
    for each in (tokenizer, again):
        assert each.decode(each.encode("the <|endoftext|> cat")) == "the <|endoftext|> cat"
    assert learned_tokenizer(LearnedTokenizerConfig(vocab_size=9000), texts).vocab_size < 300
    assert learned_tokenizer(BytesTokenizerConfig(), texts) is None


def test_unknown_hugging_face_tokenizer_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="unknown tokenizer"):
        open_tokenizer(HuggingFaceTokenizerConfig(id=str(tmp_path)))
