"""Folders and hub data sets of images: decoded right, once, whatever is killed; bad input is told in one message."""

import io
import pickle
import sys
import zlib

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from generative.data import image_pack
from generative.data.image_config import FolderImageConfig, HubImageConfig
from generative.data.image_facts import known_image_facts
from generative.data.images import open_images
from generative.data.loader import Loader
from generative.errors import DataError

image = pytest.importorskip("PIL.Image")


def noise(number, height=6, width=6, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Ten colour images, four cats and six dogs; a text file besides."""
    for number in range(10):
        save(tmp_path / "pets" / ("cat" if number < 4 else "dog") / f"{number}.png", noise(number))
    (tmp_path / "pets" / "notes.txt").write_text("no image")
    return tmp_path / "pets"


@pytest.fixture
def config(folder, tmp_path):
    return FolderImageConfig(path=folder, classes=True, validation_fraction=0.2, cache=tmp_path / "cache")


def change(config, **values):
    return type(config)(**{**config.model_dump(), **values})


def everything(source):
    return source.fetch(np.arange(len(source)))


def pixels(sample):
    """uint8[H, W, C] of a sample [C, H, W]."""
    return ((sample + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def problem(config):
    with pytest.raises(DataError) as caught:
        open_images(config)
    assert caught.value.expected
    assert caught.value.remedy
    return str(caught.value)


def test_every_image_is_there_once_with_its_class(config):
    data = open_images(config)
    assert (len(data.train), len(data.validation), data.classes, data.facts.sample_shape) == (8, 2, 2, (3, 6, 6))
    found = {}
    for source in (data.train, data.validation):
        for sample, label in zip(*everything(source).values(), strict=True):
            found[pixels(sample).tobytes()] = int(label)
    assert found == {noise(n).tobytes(): int(n >= 4) for n in range(10)}
    assert "pets, 6x6x3, 8 to train on, 2 held out" in data.description


def test_it_is_decoded_once_and_again_only_when_the_files_change(config, folder, monkeypatch):
    told = []
    first = open_images(config, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 20)
    assert told[-1] == (20, 20)
    with monkeypatch.context() as patch:
        patch.setattr(image_pack, "decode", None)
        assert open_images(config).fingerprint == first.fingerprint
        assert len(open_images(change(config, mirror=True)).train) == 16
    save(folder / "dog" / "10.png", noise(10))
    assert len(open_images(config).train) == 9


def test_headers_are_read_once_for_several_settings(config, monkeypatch):
    open_images(config)
    monkeypatch.setattr("generative.data.image_prepare.scan", None)
    assert len(open_images(change(config, validation_fraction=0, max_samples=3)).train) == 3
    assert len(open_images(change(config, validation_fraction=0)).validation) == 0


def test_sources_travel_as_paths_and_ranks_share_a_batch(config):
    source = open_images(config).train
    source.fetch(np.array([0]))
    travelled = pickle.dumps(source)
    assert len(travelled) < 2000
    assert torch.equal(everything(pickle.loads(travelled))["sample"], everything(source)["sample"])
    alone = next(Loader(source, batch_size=6, seed=0)).micro_batches[0]
    shared = [next(Loader(source, batch_size=6, seed=0, rank=r, world=3)).micro_batches[0] for r in range(3)]
    for name in ("sample", "label", "sample_id"):
        assert torch.equal(torch.cat([batch[name] for batch in shared]), alone[name])


def test_a_crash_leaves_nothing_half_written_and_the_next_attempt_goes_on(config, tmp_path, monkeypatch):
    expected = everything(open_images(change(config, cache=tmp_path / "other")).train)
    monkeypatch.setattr(image_pack, "_BLOCK_BYTES", 2 * 6 * 6 * 3)
    real, decoded = image_pack.decode, []

    def decode(file, target):
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.append(file)
        return real(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(image_pack, "decode", decode)
        with pytest.raises(KeyboardInterrupt):
            open_images(config)
    assert not list((tmp_path / "cache").glob("*/manifest.json"))
    (partial,) = (tmp_path / "cache").glob("*.partial")
    with (partial / "train.bin").open("ab") as file:
        file.write(b"torn")
    again = []
    monkeypatch.setattr(image_pack, "decode", lambda file, target: again.append(file) or real(file, target))
    data = open_images(config)
    assert len(again) == 10 - 4
    assert torch.equal(everything(data.train)["sample"], expected["sample"])
    (prepared,) = (p.parent for p in (tmp_path / "cache").glob("*/manifest.json"))
    assert {p.name for p in prepared.iterdir()} == {
        "manifest.json", "train.bin", "train.labels.bin", "validation.bin", "validation.labels.bin"
    }  # fmt: skip


def test_damage_in_the_cache_is_mended(config, tmp_path):
    good = everything(open_images(config).train)["sample"]
    (path,) = (tmp_path / "cache").glob("*/train.bin")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(everything(open_images(config).train)["sample"], good)
    path.write_bytes(bytes(len(path.read_bytes())))
    assert torch.equal(everything(open_images(config, verify=True).train)["sample"], good)


def test_images_are_cut_and_scaled_only_when_asked(folder, config):
    wide = np.zeros((6, 10, 3), dtype=np.uint8)
    wide[:, 2:8] = 200
    save(folder / "dog" / "wide.png", wide)
    told = problem(config)
    assert "unequal sizes: 6x6 (10: " in told
    assert "10x6 (1: dog/wide.png)" in told
    assert "data.resize=true" in told
    assert "10x6 (1: dog/wide.png)" in problem(change(config, size=6))
    assert "other sizes: 6x6 (10: " in problem(change(config, size=8))
    for side in (6, 3, 12):
        data = open_images(change(config, size=side, resize=True, pattern="**/wide.png", classes=False,
                                  validation_path=folder))  # fmt: skip
        assert pixels(everything(data.train)["sample"][0]).tolist() == np.full((side, side, 3), 200).tolist()
    with pytest.raises(ValidationError, match="resize=true without a size"):
        change(config, resize=True)


def test_scaling_is_pillows(folder, config):
    for name in ("lanczos", "bicubic"):
        scaled = change(config, size=4, resize=True, filter=name, pattern="**/3.png", validation_path=folder)
        expected = image.fromarray(noise(3)).resize((4, 4), getattr(image.Resampling, name.upper()))
        assert np.array_equal(pixels(everything(open_images(scaled).train)["sample"][0]), np.asarray(expected))


def test_unequal_channels_are_told_or_converted(folder, config):
    save(folder / "cat" / "gray.png", noise(20, channels=1))
    assert "images with 3 channels (10) and others (1: cat/gray.png)" in problem(config)
    gray = noise(20, channels=1)
    for channels, expected in ((3, np.stack([gray] * 3, -1)), (1, gray[..., None])):
        data = open_images(change(config, channels=channels, validation_fraction=0))
        found = [pixels(x).tobytes() for x in everything(data.train)["sample"]]
        assert data.facts.sample_shape == (channels, 6, 6)
        assert expected.tobytes() in found


def test_unusable_files_are_told_together(folder, config):
    (folder / "cat" / "empty.png").write_bytes(b"")
    (folder / "cat" / "page.jpg").write_bytes(b"<html>")
    image.fromarray(np.zeros((6, 6), np.uint16)).save(folder / "cat" / "deep.png")
    image.new("CMYK", (6, 6)).save(folder / "cat" / "print.jpg")
    frames = [image.fromarray(noise(n)) for n in (1, 2)]
    frames[0].save(folder / "cat" / "moving.webp", save_all=True, append_images=frames[1:])
    (folder / "dog" / "deep_rgb.png").write_bytes(sixteen_bit_png())
    told = problem(config)
    assert "6 of 16 images cannot be used" in told
    for culprit in (
        "cat/deep.png (more than 8 bits a channel)",
        "cat/empty.png (empty)",
        "cat/moving.webp (an animation of 2 frames)",
        "cat/page.jpg (not an image in PNG, JPEG, WebP or BMP)",
        "cat/print.jpg (colours in CMYK)",
    ):
        assert culprit in told
    assert ", ..." in told
    assert "dog/deep_rgb.png (more than 8 bits a channel)" in problem(change(config, pattern="dog/*"))


def sixteen_bit_png():
    """A 1 x 1 RGB image of 16 bits, which Pillow cannot write."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(7)))
            + chunk(b"IEND", b""))  # fmt: skip


def test_a_truncated_image_is_found_when_it_is_decoded(folder, config, tmp_path):
    path = folder / "dog" / "5.png"
    path.write_bytes(path.read_bytes()[:-40])
    told = problem(config)
    assert "1 of " in told
    assert "images cannot be used: dog/5.png (" in told
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.PNG", {}), ("a.bmp", {}), ("a.webp", {"lossless": True})]
)
def test_formats_without_loss_keep_every_pixel(tmp_path, name, options):
    save(tmp_path / "x" / name, noise(1), **options)
    config = FolderImageConfig(path=tmp_path / "x", validation_path=tmp_path / "x", cache=tmp_path / "cache")
    assert np.array_equal(pixels(everything(open_images(config).train)["sample"][0]), noise(1))


def test_palettes_bits_and_orientation_are_expanded_and_transparency_needs_a_background(tmp_path):
    root = tmp_path / "x"
    config = FolderImageConfig(path=root, validation_path=root, cache=tmp_path / "cache")
    flat = image.new("RGB", (4, 4), (10, 200, 30))
    root.mkdir()
    flat.quantize(2).save(root / "a.png")
    assert pixels(everything(open_images(config).train)["sample"][0])[0, 0].tolist() == [10, 200, 30]
    image.fromarray(np.eye(4, dtype=bool)).save(root / "a.png")
    assert np.array_equal(everything(open_images(config).train)["sample"][0, 0], np.eye(4) * 2 - 1)
    exif = image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture's top is at the right
    half = np.zeros((8, 16, 3), np.uint8)
    half[:, :8] = 255
    (root / "a.png").unlink()
    save(root / "a.jpg", half, exif=exif, quality=100)
    found = everything(open_images(config).train)["sample"][0]
    assert found.shape == (3, 16, 8)
    assert found[:, :8].min() > 0.9
    assert found[:, 8:].max() < -0.9
    (root / "a.jpg").unlink()
    clear = np.zeros((4, 4, 4), np.uint8)
    save(root / "a.png", clear)
    assert "1 images have transparency: a.png" in problem(config)
    for background, value in (("white", 1), ("black", -1)):
        assert (everything(open_images(change(config, background=background)).train)["sample"] == value).all()


def test_places_without_images_are_told(tmp_path, folder, config):
    assert "no such folder" in problem(change(config, path=tmp_path / "nowhere"))
    assert "no image fits the pattern '*.png'" in problem(change(config, pattern="*.png"))
    assert "would be held out" in problem(change(config, max_samples=1))
    save(folder / "loose.png", noise(30))
    assert "1 images lie in no class: loose.png" in problem(config)
    save(tmp_path / "held" / "bird" / "1.png", noise(31))
    told = problem(change(config, pattern="*/*", validation_path=tmp_path / "held"))
    assert "classes that the training images do not have: bird" in told


def test_the_shape_is_known_without_decoding(config, folder, monkeypatch):
    monkeypatch.setattr(image_pack, "decode", None)
    assert known_image_facts(config).sample_shape == (3, 6, 6)
    assert known_image_facts(change(config, size=4, resize=True)).sample_shape == (3, 4, 4)
    assert known_image_facts(change(config, path=folder / "nowhere", size=9, channels=1)).sample_shape == (1, 9, 9)
    with pytest.raises(DataError, match="the size of the images is not known"):
        known_image_facts(change(config, path=folder / "nowhere"))


def test_a_missing_pillow_is_told(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "pillow, which is not installed" in problem(config)


# ---------------------------------------------------------------------- data sets in the Hugging Face layout


def encoded(number):
    buffer = io.BytesIO()
    image.fromarray(noise(number)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local data set: 8 rows to train on, 4 to test; its images are marked as such or not."""
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()

    def make(marked=True, labels=None, extra=False):
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        (folder / "data").mkdir(parents=True)
        for split, numbers in (("train", range(8)), ("test", range(8, 12))):
            rows = {
                "img": [encoded(n) for n in numbers],
                "label": (labels or [n % 3 for n in range(12)])[: len(numbers)],
            }
            rows |= {"other": rows["img"]} if extra else {}
            if marked:
                names = datasets.ClassLabel(names=["a", "b", "c"])
                features = datasets.Features({"img": datasets.Image(), "label": names})
                datasets.Dataset.from_dict(rows, features).to_parquet(folder / "data" / f"{split}-0.parquet")
            else:
                import pyarrow

                parquet.write_table(pyarrow.table(rows), folder / "data" / f"{split}-0.parquet")
        return HubImageConfig(id=str(folder), cache=tmp_path / "cache")

    return make


@pytest.mark.parametrize("marked", [True, False])
def test_columns_are_found_and_splits_joined(hub, marked):
    config = change(hub(marked), extra_splits=("test",), validation_fraction=0)
    assert known_image_facts(config).sample_shape == (3, 6, 6)
    data = open_images(config)
    assert (len(data.train), len(data.validation), data.classes) == (12, 0, 3)
    found = everything(data.train)
    assert [pixels(x).tobytes() for x in found["sample"]] == [noise(n).tobytes() for n in range(12)]
    assert found["label"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 0]
    held_out = open_images(change(config, extra_splits=(), validation_split="test")).validation
    assert pixels(everything(held_out)["sample"][1]).tobytes() == noise(9).tobytes()


def test_a_prepared_data_set_is_not_loaded_again(hub, monkeypatch):
    config = change(hub(), validation_split="test")
    prepared = open_images(config)
    monkeypatch.setattr("generative.data.image_hub.load_split", None)
    assert open_images(config).fingerprint == prepared.fingerprint


def test_classes_may_be_words(hub):
    data = open_images(change(hub(False, labels=["y", "x"] * 4), validation_split="test"))
    assert data.classes == 2
    assert everything(data.train)["label"].tolist() == [1, 0] * 4


def test_a_hub_data_set_that_does_not_fit_is_told(hub, tmp_path):
    config = hub()
    assert "no image column 'label'" in problem(change(config, column="label"))
    assert "2 columns that can hold images" in problem(hub(False, extra=True))
    assert "has no column 'kind'" in problem(change(config, label_column="kind"))
    assert "split 'nosuch'" in problem(change(config, split="nosuch"))
    assert "no such folder" in problem(change(config, id=str(tmp_path / "nowhere")))
    assert "8 rows without a class, the first is row 0 (-1)" in problem(hub(False, labels=[-1] * 8))
    with pytest.raises(ValidationError, match="a split is used twice"):
        change(config, validation_split="train")
