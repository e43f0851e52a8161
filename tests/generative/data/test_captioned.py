"""Captions and images as latents and embeddings: as the pipeline itself makes them, once, and resumably."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data.captioned import open_captions
from generative.data.captioned_config import CaptionedConfig
from generative.data.captioned_files import read_captions, read_prompts
from generative.data.captioned_models import Published
from generative.data.captioned_prepare import CaptionManifest, prepare_captions
from generative.data.image_prepare import hold_out, some
from generative.errors import CheckpointError, DataError, GenerativeError
from generative.randomness import Streams
from tests.support.captions import TEXTS, captioned_images, tiny_pipeline

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    captioned_images(folder / "images")
    tiny_pipeline(folder / "model")
    return folder


def config(place: Path, **settings: object) -> CaptionedConfig:
    given = {"images": place / "images", "model": str(place / "model"), "size": 16, "cache": place / "cache"}
    return CaptionedConfig.model_validate(given | {"validation_fraction": 0.25} | settings)


def test_latents_and_texts_are_those_of_the_pipeline(place: Path) -> None:
    """By diffusers' own encoders, to the 16 bits that are kept; held-out rows are those of every image source."""
    from diffusers import StableDiffusionPipeline

    data = open_captions(config(place))
    pipe = StableDiffusionPipeline.from_pretrained(place / "model", safety_checker=None)
    rows = hold_out(some(12, None), 0.25, "")["train"]
    assert len(data.train) == len(rows) == 9
    assert len(data.validation) == 3
    assert (data.facts.sample_shape, data.facts.text_shape) == ((4, 8, 8), (77, 32))
    found = data.train.fetch(np.arange(9))
    for i, row in enumerate(rows):
        with torch.no_grad():
            text = pipe.encode_prompt(TEXTS[row % 6], "cpu", 1, False)[0][0]
            square = Image.open(place / "images" / f"{row:02d}.png")
            square = square.crop((0, (square.height - 16) // 2, 16, (square.height - 16) // 2 + 16))
            pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1
            drawn = pipe.vae.encode(pixels).latent_dist
        torch.testing.assert_close(found["text"][i].float(), text, rtol=2e-3, atol=2e-3)
        noise = Streams(0).normal("captions/latents", [int(row)], (4, 8, 8))
        latent = 0.18215 * (drawn.mean + drawn.std * noise)
        torch.testing.assert_close(found["sample"][i], latent[0], rtol=2e-3, atol=2e-3)
    pictures = data.pictures(found["sample"][:2])
    with torch.no_grad():
        wanted = pipe.vae.decode(found["sample"][:2] / 0.18215).sample.clamp(-1, 1)
    torch.testing.assert_close(pictures, wanted, rtol=1e-4, atol=1e-4)


def test_an_interrupted_preparation_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is not done again, and the result is the same."""
    from generative.data import captioned_prepare

    whole = CaptionManifest.read(prepare_captions(config(place, batch_size=2)))
    encoded = captioned_prepare._Encoding._encoded
    calls: list[int] = []

    def stops(self: object, rows: list[int]) -> dict[str, torch.Tensor]:
        calls.extend(rows)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return encoded(self, rows)

    settings = config(place, batch_size=2, cache=place / "other")
    monkeypatch.setattr(captioned_prepare._Encoding, "_encoded", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare_captions(settings)
    first = calls[:4]
    calls[:] = [0] * 7
    folder = prepare_captions(settings)
    assert not set(first) & set(calls[7:])
    assert CaptionManifest.read(folder).hashes == whole.hashes
    (folder / "train.texts.bin").write_bytes(b"")
    assert CaptionManifest.read(prepare_captions(settings)).hashes == whole.hashes


def test_captions_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a church\n\na dog\nart\n")
    data = open_captions(config(place, images=None, captions=tmp_path / "prompts.txt", validation_fraction=0))
    assert (len(data.train), len(data.validation), data.has_pictures) == (3, 0, False)
    assert data.facts.sample_shape == (4, 8, 8)
    assert data.captioned is not None
    assert data.captioned.in_words(5) == ["a church", "a dog", "art", "a church", "a dog"]
    text = data.told(torch.arange(5))["text"]
    assert torch.equal(text[3:], text[:2])
    other = data.captioned.of(["a dog"]).told(torch.arange(2))["text"]
    torch.testing.assert_close(other, text[[1, 1]], rtol=2e-3, atol=2e-3)


def test_kinds_of_tables_agree(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": "one, two", "n": 1}, {"text": "drei", "n": 2}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text('n,text\n1,"one, two"\n2,drei\n')
    (tmp_path / "a.tsv").write_text("n\ttext\n1\tone, two\n2\tdrei\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.parquet"):
        assert read_prompts(tmp_path / name) == ["one, two", "drei"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a photo\u2028of a seven\r\na two\n"),
        ("a.csv", "text,n\na photo\u2028of a seven,1\na two,2\n"),
        ("a.tsv", "text\tn\na photo\u2028of a seven\t1\na two\t2\n"),
        ("a.jsonl", '{"text": "a photo\u2028of a seven"}\n{"text": "a two"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_captions_of_any_editor(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    """With a byte order mark or not; separators of Unicode are part of a caption."""
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read_prompts(tmp_path / name) == ["a photo\u2028of a seven", "a two"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "file_name,text\n00.png,\n", "1 of 1 rows without .*row 1"),
        ("a.csv", "file_name,caption\n00.png,x\n", "no column 'text' in row 1"),
        ("a.csv", "file_name,text\nmissing.png,x\n", "1 of 1 rows name no image"),
        ("a.csv", "", "no captions in it"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.parquet", "no table", "cannot be read"),
        ("a.xlsx", "", "unknown kind"),
    ],
)
def test_what_is_wrong_with_captions_is_told(place: Path, tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        read_captions(config(place, captions=tmp_path / name))


def test_no_captions_no_model_no_pipeline(place: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="metadata"):
        read_captions(config(place, images=place / "model"))
    with pytest.raises(DataError, match=r"data\.model is not given"):
        prepare_captions(config(place, model=None))
    with pytest.raises(DataError, match="multiple of 2"):
        prepare_captions(config(place, size=17))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "_diffusers_version": "0.30"}')
    with pytest.raises(CheckpointError, match="class FluxPipeline"):
        Published(str(tmp_path)).check()
    with pytest.raises(CheckpointError, match="no model could be read"):
        Published(str(tmp_path / "nowhere")).check()
    with pytest.raises((ValueError, GenerativeError), match="neither captions nor images"):
        CaptionedConfig()
