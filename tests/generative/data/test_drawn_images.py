"""Digits, stacked digits and points: their distribution, that they are functions of their numbers, and the loader."""

import pickle

import numpy as np
import pytest
import torch

from generative.data import drawn
from generative.data.image_config import DigitsConfig, PointsConfig, StackedDigitsConfig
from generative.data.image_data import StoredImages, check_batch
from generative.data.image_facts import known_image_facts
from generative.data.images import open_images
from generative.data.loader import Loader
from generative.data.points import mixture
from generative.errors import DataError

CONFIGS = {
    "digits": DigitsConfig(),
    "stacked": StackedDigitsConfig(size=500, validation_size=50),
    "ring": PointsConfig(size=500, validation_size=50),
    "grid": PointsConfig(kind="grid", size=500, validation_size=50),
}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(autouse=True)
def _needs(request):
    if "config" not in request.fixturenames or not isinstance(request.getfixturevalue("config"), PointsConfig):
        pytest.importorskip("sklearn")


def everything(source):
    return source.fetch(np.arange(len(source)))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_digits_are_those_of_scikit_learn_shuffled_and_parted():
    from sklearn.datasets import load_digits

    data, original = open_images(DigitsConfig()), load_digits()
    train, held_out = everything(data.train), everything(data.validation)
    assert (len(data.train), len(data.validation), data.classes) == (1400, 397, 10)
    pixels = torch.cat([train["sample"], held_out["sample"]])
    labels = torch.cat([train["label"], held_out["label"]])
    found = sorted(zip((pixels.double() + 1).mul(8).flatten(1).tolist(), labels.tolist(), strict=True))
    expected = sorted(zip(original.data.tolist(), original.target.tolist(), strict=True))
    assert found == expected
    assert train["label"][:10].tolist() != original.target[:10].tolist()
    assert torch.bincount(held_out["label"]).min() > 25
    assert len(open_images(DigitsConfig(max_samples=100)).train) == 100


def test_stacked_digits_are_three_training_digits_with_their_triple_as_label():
    digits = open_images(DigitsConfig())
    data = open_images(StackedDigitsConfig(size=3000, validation_size=300))
    assert data.classes == 1000
    for stacked, single in ((data.train, digits.train), (data.validation, digits.validation)):
        known, found = everything(single), everything(stacked)
        classes = {tuple(x.flatten().tolist()): int(y) for x, y in zip(known["sample"], known["label"], strict=True)}
        channels = [[classes[tuple(c.flatten().tolist())] for c in image] for image in found["sample"]]
        assert [100 * a + 10 * b + c for a, b, c in channels] == found["label"].tolist()
    label = everything(data.train)["label"]
    for place in (label // 100, label // 10 % 10, label % 10):
        counts = torch.bincount(place, minlength=10)
        assert (counts - 300).abs().max() < 5 * (3000 * 0.1 * 0.9) ** 0.5 + 30  # 30: classes of digits are unequal
    assert abs(np.corrcoef(label // 100, label % 10)[0, 1]) < 5 / 3000**0.5


@pytest.mark.parametrize(("kind", "modes", "std"), [("ring", 8, 0.01), ("grid", 25, 0.05)])
def test_points_are_gaussians_around_their_modes(kind, modes, std):
    data = open_images(PointsConfig(kind=kind, size=8000))
    found = everything(data.train)
    centres = torch.from_numpy(mixture(kind).centres)
    assert data.classes == modes == len(centres)
    assert data.kind == "points"
    nearest = torch.cdist(found["sample"].double(), centres).argmin(1)
    assert torch.equal(nearest, found["label"])
    assert torch.bincount(nearest).min() > 8000 / modes - 5 * (8000 / modes) ** 0.5
    noise = (found["sample"] - centres[nearest]) / std
    assert noise.mean(0).abs().max() < 5 / 8000**0.5
    assert (noise.T.double() @ noise.double() / 8000 - torch.eye(2)).abs().max() < 5 * (2 / 8000) ** 0.5


def test_modes_are_where_the_protocol_puts_them():
    ring, grid = mixture("ring"), mixture("grid")
    assert np.allclose(np.hypot(*ring.centres.T), 1)
    assert np.allclose(ring.centres[2], [0, 1])
    assert sorted({float(x) for x in grid.centres.ravel()}) == [-4, -2, 0, 2, 4]
    assert len({tuple(c) for c in grid.centres.tolist()}) == 25


@each
def test_samples_are_functions_of_their_numbers(config, monkeypatch):
    data, again = open_images(config), open_images(config)
    assert data.fingerprint == again.fingerprint
    whole = everything(data.train)
    some = np.array([7, 3, 3, len(data.train) - 1])
    assert same(data.train.fetch(some), {name: tensor[some] for name, tensor in whole.items()})
    assert same(again.train.fetch(some), data.train.fetch(some))
    travelled = pickle.loads(pickle.dumps(data))
    assert same(everything(travelled.train), whole)
    assert same(everything(travelled.validation), everything(data.validation))
    monkeypatch.setattr(drawn, "MOST_KEPT", 10)
    assert same(open_images(config).train.fetch(some), data.train.fetch(some))
    with pytest.raises(IndexError):
        data.train.fetch(np.array([len(data.train)]))


@each
def test_what_is_known_beforehand_is_what_there_is(config):
    data = open_images(config)
    sample = data.train.fetch(np.arange(4))["sample"]
    assert known_image_facts(config) == data.facts
    assert sample.shape == (4, *data.facts.sample_shape)
    assert sample.dtype == torch.float32
    if data.kind == "image":
        assert sample.min() == -1
        assert sample.max() == 1


def test_fewer_held_out_or_training_samples_do_not_change_the_others():
    small, large = (open_images(StackedDigitsConfig(size=n)).train for n in (10, 40))
    assert same(everything(small), large.fetch(np.arange(10)))
    assert not same(everything(small), open_images(StackedDigitsConfig(size=10)).validation.fetch(np.arange(10)))
    assert len({open_images(StackedDigitsConfig(size=n)).fingerprint for n in (10, 40)}) == 2


def batches(source, world, workers=0):
    loaders = [Loader(source, batch_size=7, seed=1, rank=r, world=world, workers=workers) for r in range(world)]
    try:
        found = []
        for _ in range(4):
            shares = [next(loader) for loader in loaders]
            parts = [b for share in shares for b in share.micro_batches]
            found.append({k: torch.cat([b[k][b["valid"]] for b in parts]) for k in ("sample", "label", "sample_id")})
        return found
    finally:
        for loader in loaders:
            loader.close()


@each
def test_one_and_three_ranks_get_the_same_samples(config):
    source = open_images(config).train
    alone, shared = batches(source, 1), batches(source, 3)
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_loader_workers_get_the_same_samples(quick_workers):
    source = open_images(CONFIGS["ring"]).train
    assert all(same(a, b) for a, b in zip(batches(source, 1), batches(source, 1, workers=1), strict=True))


def test_the_second_half_is_mirrored():
    pixels = np.arange(2 * 3 * 2 * 4, dtype=np.uint8).reshape(2, 3, 2, 4)
    source = StoredImages(pixels, np.array([5, 6]), mirror=True)
    found = source.fetch(np.array([0, 3, 1, 2]))
    assert len(source) == 4
    assert found["label"].tolist() == [5, 6, 6, 5]
    assert torch.equal(found["sample"][3], found["sample"][0].flip(-1))
    assert torch.equal(found["sample"][1], found["sample"][2].flip(-1))
    assert torch.equal(source.fetch(np.array([0]))["sample"], torch.from_numpy(pixels[:1]) / 127.5 - 1)
    assert "label" not in StoredImages(pixels, None).fetch(np.array([1]))


def test_a_batch_larger_than_the_data_is_refused():
    data = open_images(PointsConfig(size=5))
    check_batch(data, 5)
    with pytest.raises(DataError) as caught:
        check_batch(data, 6)
    assert "5 training samples, fewer than train.batch_size=6" in caught.value.problem


def test_a_missing_package_is_told(monkeypatch):
    from generative.data.digits import load_digits

    load_digits.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="scikit-learn, which is not installed"):
        open_images(DigitsConfig())
