"""TinyLlama's packed chunks, written here byte by byte from their description."""

import struct

import numpy as np
import pytest

from generative.data.config import ShardsTextConfig
from generative.data.text import open_text
from generative.errors import ConfigError, DataError

CODES = {"u1": 1, "i2": 3, "i4": 4, "i8": 5, "u2": 8}


def write_chunk(path, tokens, kind="u2", magic=b"LITPKDS", version=1, length=None):
    head = magic + struct.pack("<Q", version) + bytes([CODES.get(kind, 6)])
    head += struct.pack("<Q", len(tokens) if length is None else length)
    assert len(head) == 24
    path.write_bytes(head + np.asarray(tokens).astype(f"<{kind}").tobytes())


@pytest.mark.parametrize("kind", ["u2", "i4", "i8"])
def test_chunks_are_one_sequence_and_its_end_is_held_out(tmp_path, kind):
    text = np.frombuffer(b"abcdefghij" * 10, dtype=np.uint8)
    write_chunk(tmp_path / "x_2.bin", text[60:], kind)
    write_chunk(tmp_path / "x_1.bin", text[:60], kind)
    data = open_text(ShardsTextConfig(path=tmp_path, sequence_length=7, stride=8, validation_fraction=0.2))
    assert data.train.fetch(np.arange(10))["tokens"].tolist() == text[:80].reshape(10, 8).tolist()
    assert data.validation.fetch(np.array([0]))["tokens"][0].tolist() == text[80:88].tolist()
    assert len(data.validation) == (20 - 1) // 7
    assert data.bytes_per_token == 1


def test_named_chunks_are_held_out(tmp_path):
    (tmp_path / "val").mkdir()
    write_chunk(tmp_path / "a.bin", range(50))
    write_chunk(tmp_path / "val" / "a.bin", range(100, 120))
    data = open_text(ShardsTextConfig(path=tmp_path, validation_path=tmp_path / "val", sequence_length=9))
    assert len(data.train) == 5
    assert data.validation.fetch(np.array([0]))["tokens"][0].tolist() == list(range(100, 110))


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ({"magic": b"LITPKDX"}, "manifest"),
        ({"version": 2}, "version 2"),
        ({"kind": "f4"}, "type code 6"),
        ({"length": 51}, "bytes, where its header says"),
        ({"length": 49}, "bytes, where its header says"),
    ],
)
def test_damaged_chunks_are_refused(tmp_path, chunk, message):
    write_chunk(tmp_path / "a.bin", range(50), **chunk)
    with pytest.raises(DataError, match=message):
        open_text(ShardsTextConfig(path=tmp_path, sequence_length=4))


def test_a_damaged_chunk_among_good_ones_is_named(tmp_path):
    write_chunk(tmp_path / "a.bin", range(50))
    (tmp_path / "b.bin").write_bytes(b"LITP")
    with pytest.raises(DataError, match=r"b\.bin.*LITPKDS"):
        open_text(ShardsTextConfig(path=tmp_path, sequence_length=4))


def test_ids_that_the_tokenizer_does_not_have_are_refused(tmp_path):
    write_chunk(tmp_path / "a.bin", range(230, 280))
    with pytest.raises(DataError, match=r"230 \.\. 274 do not fit the tokenizer's 257"):
        open_text(ShardsTextConfig(path=tmp_path, sequence_length=4))
    with pytest.raises(ConfigError, match="characters"):
        open_text(ShardsTextConfig(path=tmp_path, sequence_length=4, tokenizer={"name": "characters"}))


def test_too_few_tokens_are_refused(tmp_path):
    write_chunk(tmp_path / "a.bin", range(50))
    with pytest.raises(DataError, match="fewer than the 101"):
        open_text(ShardsTextConfig(path=tmp_path, sequence_length=100))
    with pytest.raises(DataError, match="no file fits"):
        open_text(ShardsTextConfig(path=tmp_path, validation_path=tmp_path / "none", sequence_length=4))
