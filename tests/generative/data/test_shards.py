"""Windows over memory-mapped files are slices of their concatenation; damage is found."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generative.data.files import file_hash
from generative.data.manifest import Manifest, Shard
from generative.data.shards import TokenFile, TokenSequence, WindowSource
from generative.errors import DataError


def write_files(folder, sizes, dtype="<u2", header=b""):
    """Files with tokens 0, 1, 2, ... over all of them."""
    files, start = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"{number}.bin"
        path.write_bytes(header + np.arange(start, start + size).astype(dtype).tobytes())
        files.append(TokenFile(path, size, dtype, len(header)))
        start += size
    return files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    length=st.integers(1, 12),
    stride=st.integers(1, 15),
    cut=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    dtype=st.sampled_from(["<u2", "<u4", "<i8"]),
)
def test_windows_are_slices_of_the_concatenation(tmp_path, sizes, length, stride, cut, dtype):
    everything = np.arange(sum(sizes))
    stop = max(sum(sizes) - cut[1], min(cut[0], sum(sizes)))
    expected = everything[min(cut[0], sum(sizes)) : stop]
    part = TokenSequence(write_files(tmp_path, sizes, dtype, header=b"head")).part(min(cut[0], sum(sizes)))
    part = part.part(0, len(expected))
    windows = [expected[i : i + length + 1].tolist() for i in range(0, len(expected) - length, stride)]
    if not windows:
        with pytest.raises(DataError, match="fewer than"):
            WindowSource(part, length, stride)
        return
    source = WindowSource(part, length, stride)
    assert len(source) == len(windows)
    fetched = source.fetch(np.arange(len(source)))["tokens"]
    assert fetched.dtype == torch.int64
    assert fetched.tolist() == windows
    assert pickle.loads(pickle.dumps(source)).fetch(np.array([0]))["tokens"].tolist() == windows[:1]


def test_each_token_but_the_first_is_predicted_once(tmp_path):
    source = WindowSource(TokenSequence(write_files(tmp_path, [10, 7, 20])), length=4, stride=4)
    predicted = source.fetch(np.arange(len(source)))["tokens"][:, 1:].flatten()
    assert predicted.tolist() == list(range(1, 1 + 4 * len(source)))
    assert len(source) == (37 - 1) // 4


def test_a_pickled_source_holds_paths_and_not_tokens(tmp_path):
    source = WindowSource(TokenSequence(write_files(tmp_path, [50_000], "<u4")), 4, 4)
    source.fetch(np.array([0]))
    assert len(pickle.dumps(source)) < 2000


@pytest.mark.parametrize("index", [-1, 9, 10**12])
def test_window_numbers_out_of_range_are_refused(tmp_path, index):
    source = WindowSource(TokenSequence(write_files(tmp_path, [37])), 4, 4)
    with pytest.raises(IndexError):
        source.fetch(np.array([0, index]))


@pytest.fixture
def folder(tmp_path):
    shards = []
    for file in write_files(tmp_path, [10, 20]):
        shards.append(Shard(file.path.name, file.tokens, 1, file.tokens, file_hash(file.path)))
    Manifest("uint16", 256, 257, {"train": shards[:1], "validation": shards[1:]}, "test").write(tmp_path)
    return tmp_path


def test_manifest_round_trip(folder):
    manifest = Manifest.read(folder)
    manifest.check(folder, hashes=True)
    assert manifest.total("validation", "tokens") == 20
    assert (manifest.eos, manifest.vocab_size) == (256, 257)


def test_fingerprint_follows_the_tokens(folder):
    before = Manifest.read(folder)
    values = json.loads((folder / "manifest.json").read_text())
    values["description"], values["source"] = "moved", {"x": 1}
    (folder / "manifest.json").write_text(json.dumps(values))
    assert Manifest.read(folder).fingerprint == before.fingerprint
    values["splits"]["train"][0]["sha256"] = "0"
    (folder / "manifest.json").write_text(json.dumps(values))
    assert Manifest.read(folder).fingerprint != before.fingerprint


def test_a_flipped_byte_is_found_by_hash_and_a_cut_file_by_size(folder):
    data = bytearray((folder / "1.bin").read_bytes())
    data[7] ^= 1
    (folder / "1.bin").write_bytes(data)
    Manifest.read(folder).check(folder)
    with pytest.raises(DataError, match=r"1\.bin.*sha256"):
        Manifest.read(folder).check(folder, hashes=True)
    (folder / "1.bin").write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"1\.bin.*38 bytes, where 40"):
        Manifest.read(folder).check(folder)
    (folder / "1.bin").unlink()
    with pytest.raises(DataError, match=r"1\.bin"):
        Manifest.read(folder).check(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"format": "other", "version": 1}'])
def test_damaged_manifests_are_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Manifest.read(folder)


def test_a_manifest_of_another_version_is_refused(folder):
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(DataError, match="version"):
        Manifest.read(folder)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="prepare"):
        Manifest.read(tmp_path)
