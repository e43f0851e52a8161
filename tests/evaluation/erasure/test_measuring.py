"""Shares and curves by hand, prompt sets in the released layouts, and detectors with models that are made up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from evaluation.erasure.clip import Q16, q16
from evaluation.erasure.detectors import EXPOSED, Classes, Parts, lpips64, nude_net
from evaluation.erasure.labels import open_labels, shares
from evaluation.erasure.opening import open_detector
from evaluation.erasure.prompts import read_prompts
from evaluation.erasure.rates import share, success_at
from generative.errors import ConfigError, DataError


def test_a_share_has_its_binomial_error():
    found = share(20, 80)
    assert (found.value, found.n) == (0.25, 80)
    assert found.stderr == pytest.approx((0.25 * 0.75 / 80) ** 0.5)
    # No certainty of few images: the deviation of Beta(2, 1), and no jump from 599 to 600 hits of 600.
    assert share(1, 1).stderr == pytest.approx(math.sqrt(1 / 18))
    assert share(600, 600).stderr == share(0, 600).stderr == pytest.approx(share(599, 600).stderr, rel=0.01)
    with pytest.raises(ValueError):
        share(3, 2)


def test_success_at_equal_accuracy_lies_between_settings():
    curve = [(0.8, 0.2), (1.0, 0.6), (0.6, 0.1)]
    assert success_at(curve, 0.9) == pytest.approx(0.4)
    assert success_at([*curve, (0.8, 0.4)], 0.8) == pytest.approx(0.3)
    assert success_at([(0.95, 0.5)], 0.9) is None
    assert success_at([], 0.9) is None


def test_prompt_sets_in_released_layouts(tmp_path: Path):
    path = tmp_path / "set.csv"
    path.write_text('case_number,prompt,evaluation_seed,evaluation_guidance,class\n7,"a, b",42,5.0,church\n9,c,3,,\n')
    first, second = read_prompts(path)
    assert (first.case, first.prompt, first.seed, first.guidance) == (7, "a, b", 42, 5.0)
    assert (second.guidance, second.file(2)) == (7.5, "9_2.png")
    path.write_text("prompt,sd_seed,categories\nx,17,hate\n")
    (only,) = read_prompts(path)
    assert (only.case, only.seed) == (0, 17)
    path.write_text("prompt,sd_seed,sd_guidance_scale\nx,17,12\n")
    assert read_prompts(path)[0].guidance == 7.5  # RECE's evaluation reads evaluation_guidance alone


def test_seeds_are_read_to_the_last_digit(tmp_path: Path):
    path = tmp_path / "set.csv"
    path.write_text(f"prompt,evaluation_seed\nx,{2**62 + 1}\nx,17.0\nx,-3\n")
    assert [row.seed for row in read_prompts(path)] == [2**62 + 1, 17, -3]


@pytest.mark.parametrize(
    "text",
    [
        *("", "text\na\n", "prompt,sd_seed\na,many\n", "prompt,seed\na,inf\n", f"prompt,seed\na,{10**23}\n"),
        *("prompt,guidance\na,nan\n", "prompt,guidance\na,inf\n"),
    ],
)
def test_other_files_are_no_prompt_sets(tmp_path: Path, text: str):
    path = tmp_path / "set.csv"
    path.write_text(text)
    with pytest.raises(DataError):
        read_prompts(path)
    with pytest.raises(DataError):
        read_prompts(tmp_path / "none.csv")


def test_parts_are_counted_once_an_image_above_the_threshold():
    boxes = iter(
        [
            [{"class": EXPOSED[0], "score": 0.7}, {"class": EXPOSED[0], "score": 0.9}],
            [{"class": EXPOSED[1], "score": 0.6}, {"class": "FACE_FEMALE", "score": 0.99}],
        ]
    )
    seen = []

    def detect(image):
        seen.append(image)
        return next(boxes)

    detector = Parts(detect)
    images = torch.zeros(2, 3, 2, 2)
    images[0, 0] = 1.0  # red
    assert detector.found(images) == [{EXPOSED[0]: 0.9}, {}]
    assert seen[0].shape == (2, 2, 3)
    assert seen[0][0, 0].tolist() == [128, 128, 255]  # blue, green, red
    assert "0.6" in detector.protocol
    assert "9 classes" in detector.protocol


def test_classifiers_and_q16_decide_by_the_largest():
    assert Classes(lambda x: x.flatten(1), (1, 2), "fake")(torch.eye(3).view(3, 3, 1, 1)).tolist() == [
        False,
        True,
        True,
    ]
    verdict = Q16(lambda x: x.flatten(1), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert verdict(torch.tensor([[3.0, 1.0], [1.0, 1.5]]).view(2, 2, 1, 1)).tolist() == [False, True]


def test_lpips_sees_images_of_64_pixels():
    shapes = []

    def distance(a, b):
        shapes.append(a.shape)
        return (a - b).abs().mean((1, 2, 3), keepdim=True)

    found = lpips64(torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16), distance)
    assert shapes == [(2, 3, 64, 64)]
    assert found.tolist() == [1.0, 1.0]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "nudenet", None)
    with pytest.raises(DataError, match="nudenet"):
        nude_net()


def test_prompts_of_q16_come_without_pickle(tmp_path: Path):
    path = tmp_path / "prompts.p"
    path.write_bytes(b"cnumpy")
    with pytest.raises(DataError, match="pickles are not read"):
        q16(path, "none")


def test_shares_of_attributes():
    assert shares(torch.tensor([0, 2, 2, 0]), 3).tolist() == [0.5, 0, 0.5]
    with pytest.raises(ConfigError, match="'ten'"):
        open_labels("digits", ["one", "ten"])


@pytest.mark.parametrize("name", ["digits:ten", "nudenet:much", "resnet:church", "q16"])
def test_detectors_that_are_not_there(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.erasure.opening.nude_net", lambda threshold: None)
    with pytest.raises(ConfigError):
        open_detector(name)
