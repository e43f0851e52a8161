"""Figures of folders against numbers by hand, and what cannot be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.erasure.clip import ClipScore
from evaluation.erasure.detectors import lpips_alex
from evaluation.erasure.folders import folder_clip, folder_fid, folder_lpips, image_files, open_features, read_batches
from evaluation.erasure.prompts import read_pairs
from evaluation.images.extractors import PixelExtractor
from generative.data.image_files import png
from generative.errors import ConfigError, DataError


def write(folder: Path, images: torch.Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        (folder / f"{i}_0.png").write_bytes(png(image))
    return folder


def gray(values: list[float]) -> torch.Tensor:
    """Pixels that 8 bits hold exactly: x / 127.5 - 1."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2) / 127.5 - 1


def test_images_come_back_as_they_were(tmp_path: Path):
    images = gray([0, 7, 255])
    ((found, ids),) = list(read_batches(image_files(write(tmp_path / "a", images))))
    torch.testing.assert_close(found, images, rtol=0, atol=1e-6)
    assert ids.tolist() == [0, 1, 2]


def test_fid_of_shifted_pixels_is_the_square_of_the_shift(tmp_path: Path):
    first, second = (write(tmp_path / name, gray(values)) for name, values in (("a", [0, 10, 20]), ("b", [51, 61, 71])))
    found = folder_fid(first, second, PixelExtractor())
    assert found.value == pytest.approx(4 * 0.4**2, rel=1e-3)
    assert "pixels" in found.protocol
    assert found.stderr is not None
    assert folder_fid(first, first, PixelExtractor()).value == pytest.approx(0, abs=1e-9)


def test_lpips_pairs_images_by_name(tmp_path: Path):
    first = write(tmp_path / "a", gray([0, 51, 102]))
    second = write(tmp_path / "b", gray([51, 51]))
    found = folder_lpips(first, second, lambda a, b: (a - b).abs().mean((1, 2, 3)))
    assert (found.value, found.n) == (pytest.approx(0.2), 2)
    assert "64 x 64" in found.protocol


class Score:
    name = "a clip"

    def __call__(self, images, prompts):
        return torch.tensor([float(len(prompt)) for prompt in prompts]) + images.mean((1, 2, 3))


def test_clip_scores_go_with_their_prompts(tmp_path: Path):
    folder = write(tmp_path / "a", gray([0, 255]))
    found = folder_clip([folder / "1_0.png", folder / "0_0.png"], ["four", "six"], Score())
    assert found.value == pytest.approx((4 + 1 + 3 - 1) / 2, abs=1e-6)
    assert "a clip" in found.protocol


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        image_files(tmp_path / "none")
    with pytest.raises(DataError, match="1 images"):
        image_files(write(tmp_path / "one", gray([0])))
    mixed = write(tmp_path / "mixed", gray([0, 1]))
    (mixed / "2_0.png").write_bytes(png(torch.zeros(1, 3, 3)))
    with pytest.raises(DataError, match="3x3 pixels"):
        list(read_batches(image_files(mixed)))


def test_extractors_by_name():
    assert isinstance(open_features("pixels"), PixelExtractor)
    with pytest.raises(ConfigError, match="without weights"):
        open_features("inception")
    with pytest.raises(ConfigError, match="unknown extractor 'pixel'"):
        open_features("pixel")
    with pytest.raises(DataError):
        open_features("inception:/nowhere/weights.pt")


def test_lpips_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(DataError, match="needs the package lpips"):
        lpips_alex()


def test_a_clip_model_that_is_not_there_is_told(tmp_path: Path):
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="cannot be read"):
        ClipScore.open(str(tmp_path / "none"))


def test_pairs_of_texts(tmp_path: Path):
    path = tmp_path / "pairs.csv"
    path.write_text("sensitive,normal\na nude person,a person\n")
    assert read_pairs(path) == [("a nude person", "a person")]
    for text in ("a,b\n1,2\n", "sensitive,normal\n", "sensitive,normal\nx,\n"):
        path.write_text(text)
        with pytest.raises(DataError, match="sensitive"):
            read_pairs(path)
