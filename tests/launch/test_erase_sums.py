"""Sums over texts by several workers are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generative.hub.open_text_to_image import open_model
from generative.methods.rece.request import keep_sums
from launch import erase_sums
from launch.erase_sums import summing_with
from launch.sections import LaunchConfig
from tests.support.actors import actors_here
from tests.support.pipelines import golden_folder

pytest.importorskip("transformers")

TEXTS = ["monet", "an oak", "", "church", "a photo of a dog"]


def same(model: Path, tmp_path: Path, launch: LaunchConfig) -> None:
    encode = open_model(str(model)).encoders().encode
    wanted = keep_sums(TEXTS, encode, ["whole", "last"])
    told: list[tuple[int, int]] = []
    summed = summing_with(str(model), None, None, launch, tmp_path / "log", lambda *counts: told.append(counts), most=2)
    found = summed(iter(TEXTS), encode, ["whole", "last"])
    assert found.keys() == wanted.keys() == {("text", "whole"), ("text", "last")}
    for key, kept in wanted.items():
        assert found[key].texts == kept.texts == 5
        torch.testing.assert_close(found[key].gram, kept.gram, rtol=1e-12, atol=1e-12)
    assert told[-1] == (3, 3)


def test_in_parts_in_this_process(tmp_path: Path) -> None:
    same(golden_folder(tmp_path / "tiny"), tmp_path, LaunchConfig(workers=1))


def test_by_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = actors_here(monkeypatch, erase_sums)
    same(golden_folder(tmp_path / "tiny"), tmp_path, LaunchConfig(workers=2))
    assert (len(actors.items), actors.workers) == (3, [2])
