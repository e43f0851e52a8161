import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evaluation.images.extractors import PixelExtractor
from evaluation.images.inception import resize
from evaluation.images.opening import open_extractor
from evaluation.images.published import BackboneExtractor, InceptionExtractor
from evaluation.images.small import LabelledImages, small_extractor
from evaluation.images.small_network import SmallSettings, Task
from generative.errors import ConfigError, DataError, GenerativeError
from generative.randomness import Streams
from tests.support.inception import golden_images, inception_state

GOLDEN = Path(__file__).parents[2] / "golden" / "mee_gan" / "inception.npz"
QUICK = SmallSettings(steps=30, batch_size=32, width=8, features=16)


def shapes(count, channels=1, side=8):
    """Bright bars that lie or stand: two classes that anything can learn, and that turn into each other."""
    noise = 0.1 * Streams(0).normal("noise", torch.arange(count), (channels, side, side))
    labels, place = torch.arange(count) % 2, torch.arange(count) // 2 % side
    bars = torch.full((count, channels, side, side), -0.8)
    for image, label, at in zip(bars, labels.tolist(), place.tolist(), strict=True):
        image.select(1 + label, at).fill_(0.8)
    return LabelledImages((bars + noise).clamp(-1, 1), labels, "bars")


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(inception_state(), path)
    return path


def test_golden_inception(inception_file):
    extractor = InceptionExtractor(str(inception_file))
    pixels = golden_images()
    found = extractor(pixels / 127.5 - 1)
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(found.features, golden["features"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.probabilities, torch.tensor(golden["logits"]).softmax(1), rtol=1e-3, atol=1e-6)
    assert extractor.description.startswith("Inception 2015-12-05 pool3 (weights ")


def test_resizing_starts_at_the_first_pixel():
    image = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    torch.testing.assert_close(resize(image, 4)[0, 0, 0], torch.tensor([0.0, 1.0, 2.0, 2.0]))
    torch.testing.assert_close(resize(image, 4)[0, 0, :, 0], torch.tensor([0.0, 2.0, 4.0, 4.0]))


def test_missing_or_wrong_weights_name_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"evaluate\.extractor=small"):
        InceptionExtractor(str(tmp_path / "none.pth"))
    with pytest.raises(DataError, match=r"evaluate\.extractor=small"):
        InceptionExtractor("hub:nobody/nothing/weights.safetensors")
    with pytest.raises(DataError, match=r"evaluate\.extractor=small"):
        BackboneExtractor(str(tmp_path / "none"))
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="not the weights of the Inception network"):
        InceptionExtractor(str(tmp_path / "other.safetensors"))


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_weights_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "bad.pth")
    torch.save({"epoch": 3}, "mixed.pth")
    for name in ("bad.pth", "mixed.pth"):
        with pytest.raises(GenerativeError, match=name):
            InceptionExtractor(name)
    assert not Path("touched").exists()


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("backbone")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    streams = Streams(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.2 * streams.normal(name, [0], parameter.shape)[0])
    model.save_pretrained(folder)
    preprocessing = {"crop_size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder, model.eval()


def test_a_backbone_gives_its_pooled_output(backbone_folder):
    folder, model = backbone_folder
    extractor = BackboneExtractor(str(folder))
    images = Streams(0).uniform("images", [0, 1, 2], (3, 24, 24)) * 2 - 1
    found = extractor(images)
    with torch.no_grad():
        wanted = model(((images + 1) / 2 - 0.5) / 0.25).pooler_output
    torch.testing.assert_close(found.features, wanted, rtol=1e-4, atol=1e-5)
    assert found.probabilities is None
    assert extractor(images[:, :1, :10, :12]).features.shape == (3, 16)
    assert "24 px" in extractor.description
    assert extractor.fingerprint == BackboneExtractor(str(folder)).fingerprint


def test_a_model_of_text_is_no_extractor(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no model of images"):
        BackboneExtractor(str(tmp_path))


def test_a_small_classifier_learns_and_says_how_well():
    extractor = small_extractor(shapes(200), QUICK)
    assert extractor.accuracy.value > 95
    assert extractor.accuracy.n == 40
    assert "of bars" in extractor.description
    assert "40 held-out images" in extractor.description
    found = extractor(shapes(6).images)
    assert found.features.shape == (6, 16)
    assert found.probabilities.argmax(1).tolist() == [0, 1] * 3


def test_a_small_classifier_is_the_same_each_time_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second = (small_extractor(shapes(60), QUICK) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != small_extractor(shapes(60), SmallSettings(**{**vars(QUICK), "seed": 1})).fingerprint
    assert torch.equal(state, torch.get_rng_state())


def test_a_classifier_of_gray_images_sees_each_channel_alone():
    extractor = small_extractor(shapes(200), QUICK)
    gray = shapes(6).images
    stacked = gray.reshape(2, 3, 8, 8)
    alone, together = extractor(gray), extractor(stacked)
    torch.testing.assert_close(together.features, alone.features.reshape(2, 48))
    assert together.probabilities.shape == (2, 8)
    torch.testing.assert_close(together.probabilities.sum(1), torch.ones(2))
    # channels 0 and 2 lie, channel 1 stands: combination 010
    assert together.probabilities.argmax(1).tolist() == [0b010, 0b101]
    assert extractor.class_probabilities(stacked).argmax(2).tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (3, 66)])
def test_color_images_of_other_sizes(channels, side):
    data = shapes(20, channels, side)
    extractor = small_extractor(data, SmallSettings(steps=1, batch_size=4, width=4, features=8))
    assert extractor(data.images).features.shape == (20, 8)
    with pytest.raises(DataError, match=r"images are float32\[2, 1, 32, 32\]"):
        extractor(torch.zeros(2, 1, 32, 32))


def test_without_labels_it_tells_rotations():
    task = Task(shapes(2).images, None)
    images, labels = task.fetch(torch.tensor([5, 2]))
    assert labels.tolist() == [1, 2]
    assert torch.equal(images[0], task.images[1].rot90(1, (1, 2)))
    assert torch.equal(images[1], task.images[0].rot90(2, (1, 2)))
    extractor = small_extractor(LabelledImages(shapes(60).images, None, "bars"), QUICK)
    assert extractor(shapes(3).images).probabilities is None
    assert extractor.accuracy.n == 48
    assert "rotation classifier" in extractor.description


def test_classifiers_are_kept_by_content(tmp_path, monkeypatch):
    told: list[tuple[int, int]] = []
    first = small_extractor(shapes(60), QUICK, tmp_path, lambda *counts: told.append(counts))
    assert told == [(step + 1, QUICK.steps) for step in range(QUICK.steps)]
    monkeypatch.setattr("evaluation.images.small.train", None)  # a second training would fail
    again = small_extractor(shapes(60), QUICK, tmp_path, lambda *counts: pytest.fail("it was trained before"))
    assert (again.fingerprint, again.description) == (first.fingerprint, first.description)
    torch.testing.assert_close(again(shapes(4).images).features, first(shapes(4).images).features)
    with pytest.raises(TypeError):
        small_extractor(shapes(61), QUICK, cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"torn")
    with pytest.raises(DataError, match="damaged extractor"):
        small_extractor(shapes(60), QUICK, cache=tmp_path)


def test_data_that_nothing_can_be_learned_from():
    images = shapes(20).images
    for data, message in (
        (LabelledImages(images[:3], None, "few"), "few: 3 images of 8 pixels"),
        (LabelledImages(images[..., :3], None, "thin"), "20 images of 3 pixels"),
        (LabelledImages(images[..., :6], None, "oblong"), "8 x 6 pixels without labels"),
        (LabelledImages(images, torch.arange(19), "short"), r"labels \[19\]"),
    ):
        with pytest.raises(DataError, match=message):
            small_extractor(data, QUICK)


def test_pixels():
    images = shapes(4).images
    assert torch.equal(PixelExtractor()(images).features, images.flatten(1))
    with pytest.raises(DataError, match=r"images are uint8\[4, 1, 8, 8\]"):
        PixelExtractor()(images.byte())


def test_extractors_have_names(inception_file):
    assert isinstance(open_extractor("pixels"), PixelExtractor)
    assert isinstance(open_extractor("inception", weights=str(inception_file)), InceptionExtractor)
    assert "of bars" in open_extractor("small", training=shapes(20), settings=QUICK).description
    for name, message in (("inseption", "Did you mean inception"), ("small", "without images to train on")):
        with pytest.raises(ConfigError, match=message):
            open_extractor(name)
    with pytest.raises(DataError, match=r"evaluate\.extractor=small"):
        open_extractor("inception")
