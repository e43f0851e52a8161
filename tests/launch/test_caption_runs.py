"""Distilling a tiny Stable Diffusion on the command line: train, resume, samples for prompts, figures, export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.errors import GenerativeError
from generative.hub.loading import load_exported
from generative.randomness import Streams
from generative.training.checkpoint import open_checkpoint
from launch import runs
from launch.cli import main
from launch.image_task import known_facts
from launch.modality import build_method
from launch.plan import outline
from launch.run import train
from launch.schema import load_run_config
from launch.teachers import without_missing
from tests.support.captions import captioned_images, tiny_pipeline
from tests.support.image_runs import SMALL_LOOKS
from tests.support.schema import check_lines

pytest.importorskip("diffusers")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    captioned_images(folder / "images")
    tiny_pipeline(folder / "model")
    return folder


@pytest.fixture(scope="module")
def words(place: Path) -> list[str]:
    data = [f"data.images={place / 'images'}", "data.size=16", f"data.cache={place / 'cache'}"]
    data += ["data.validation_fraction=0.25"]
    method = [f"method.teacher={place / 'model'}", "method.levels=null", "method.critic_updates=1", "method.ema=[0.5]"]
    method += ["method.teacher_steps=2"]
    spread = [*SMALL_LOOKS, "launch.gpus_per_worker=0", "train.precision=fp32", "train.batch_size=4", "train.steps=2"]
    quick = ["train.log_every=1", "train.checkpoint.every_steps=1", "train.sample_every=null", "sample.count=4"]
    looks = ["evaluate.samples=9", "evaluate.reference_samples=9", "sample.monitor=0", "sample.neighbours=2"]
    looks += ["evaluate.extractor_weights=null", "evaluate.metrics=[fid,improved]"]
    return [*data, *method, *spread, *quick, *looks, f"run.dir={place / 'run'}"]


@pytest.fixture(scope="module")
def finished(place: Path, words: list[str]) -> Path:
    assert train("f_distill/sd15", words) == 0
    return place / "run"


def test_a_run_keeps_what_the_pipeline_tells_and_shows_both(finished: Path, place: Path) -> None:
    check_lines(finished)
    config = runs.read_config(finished)
    assert config.data.model == str(place / "model")
    assert (config.method.shape, config.method.network.tokens, config.method.classes) == ((4, 8, 8), 77, 0)
    assert config.method.student_sigma == config.method.time.sigma_max == pytest.approx(14.6146, rel=1e-4)
    drawn = json.loads((finished / "samples" / "step_000002.json").read_text())
    assert [item["kind"] for item in drawn["items"]] == ["grid", "grid", "neighbours"]
    assert len(drawn["items"][0]["captions"]) == 4
    figures = json.loads((finished / "evaluation.json").read_text())["figures"]
    assert {"fid", "improved_recall"} <= figures.keys()


def test_a_run_that_was_stopped_goes_on_the_same(finished: Path, words: list[str], tmp_path: Path) -> None:
    there = tmp_path / "run"
    shutil.copytree(finished, there, ignore=shutil.ignore_patterns("step_000002*", "outcome.json"))
    assert train("f_distill/sd15", [*words, f"run.dir={there}", "evaluate.at_end=false", "sample.at_end=false"]) == 0
    whole, resumed = open_checkpoint(finished), open_checkpoint(there)
    assert whole.step == resumed.step == 2
    for name in whole.names():
        torch.testing.assert_close(resumed.tensor(name), whole.tensor(name), rtol=0, atol=0)


def test_samples_for_prompts_are_those_of_the_exported_pipeline(finished: Path, tmp_path: Path) -> None:
    """One step of diffusers' own sampler from the same noise, decoded by its own autoencoder."""
    from diffusers import StableDiffusionPipeline

    drawn = runs.sample_run(finished, prompt="a church", count=2)
    folder = Path(drawn["folder"])
    assert drawn["items"][0]["captions"] == ["a church", "a church"]
    files = sorted(path.name for path in folder.glob("step_000002_0*.png"))
    assert files == ["step_000002_0000.png", "step_000002_0001.png"]
    to = tmp_path / "pipeline"
    assert main(["export", str(finished), "--to", str(to), "--layout", "diffusers", "--weights", "ema"]) == 0
    pipe = StableDiffusionPipeline.from_pretrained(to)
    pipe.set_progress_bar_config(disable=True)
    noise = Streams(0).within("samples").normal("z", [0, 1], (4, 8, 8))
    asked = {"num_inference_steps": 1, "guidance_scale": 0.0, "output_type": "np", "height": 16, "width": 16}
    found = pipe(["a church"] * 2, latents=noise, **asked).images
    for i, name in enumerate(files):
        mine = np.array(Image.open(folder / name).resize((16, 16), Image.Resampling.NEAREST)) / 255
        assert np.abs(mine - found[i]).max() < 0.02
    exported = main(["export", str(finished), "--to", str(tmp_path / "ours"), "--weights", "ema"])
    assert exported == 0
    text = pipe.encode_prompt("a church", "cpu", 1, False)[0].expand(2, -1, -1)
    latents = load_exported(tmp_path / "ours").sample(2, text=text)
    with pytest.raises(GenerativeError, match=r"told texts[\s\S]*--layout diffusers"):
        runs.sample_run(tmp_path / "ours")
    asked |= {"output_type": "latent"}
    wanted = pipe(["a church"] * 2, latents=noise, **asked).images
    torch.testing.assert_close(latents, wanted, rtol=2e-3, atol=2e-3 * float(wanted.abs().max()))


def test_prompts_from_a_file(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\na church\n")
    drawn = runs.sample_run(finished, count=3, overrides=[f"sample.prompts={tmp_path / 'prompts.txt'}"])
    assert drawn["items"][0]["captions"] == ["a dog", "a church", "a dog"]
    with pytest.raises(GenerativeError, match="either of them"):
        runs.sample_run(finished, prompt="x", overrides=[f"sample.prompts={tmp_path / 'prompts.txt'}"])
    with pytest.raises(GenerativeError, match="no such file"):
        runs.sample_run(finished, overrides=["sample.prompts=nowhere.txt"])


def test_captions_alone_suffice_without_a_discriminator(place: Path, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a church\na dog\nart\na garden\nan oak\ntwo words\n")
    alone = [*words, "data.images=null", f"data.captions={tmp_path / 'prompts.txt'}", f"run.dir={tmp_path / 'run'}"]
    with pytest.raises(GenerativeError, match=r"data\.images is not given, and the run has a discriminator"):
        train("f_distill/sd15", alone)
    quiet = ["method.preset=dmd2_sd15", "evaluate.at_end=false", "sample.neighbours=0", "train.steps=1"]
    noised = ["method.steps.levels=[0.8]", "method.steps.input=noised_data"]  # of zeros in the place of latents
    with pytest.raises(GenerativeError, match=r"noised real images \(method\.steps\.input\)"):
        train("f_distill/sd15", [*alone, *quiet, *noised])
    assert train("f_distill/sd15", [*alone, *quiet]) == 0


def test_the_published_settings_need_no_model_for_a_plan() -> None:
    config = without_missing(load_run_config("f_distill/sd15", ["plan.machine=h100-80gb"]))
    assert config.method.teacher is None
    facts = known_facts(config)
    told = outline(config, build_method(config, facts), facts, "")
    sizes = {network.name: network.parameters for network in told.networks}
    assert sizes["teacher"] == sizes["student"] == sizes["fake"] == 859_520_964
    assert told.steps == 6000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["method.teacher=nowhere/at-all"], "no model could be read|not to be had"),
        (["data.images=nowhere"], "no captions"),
        (["data.size=32"], r"data\.size=32 with a teacher of latents"),
        (["method.student_sigma=80"], "student_sigma=80"),
        (["method.time.sigma_max=20"], "the teacher has"),
        (["~method.network"], "a pipeline of diffusers"),
        (["method.levels=[7]"], "levels from 0 to 2"),
    ],
)
def test_what_is_wrong_is_told_before_work_starts(
    words: list[str], tmp_path: Path, change: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(GenerativeError, match=told):
        train("f_distill/sd15", [*words, f"run.dir={tmp_path / 'run'}", *change])


def test_images_without_captions_are_refused(words: list[str], tmp_path: Path) -> None:
    others = [word for word in words if not word.startswith("data.")]
    with pytest.raises(GenerativeError, match="without captions"):
        train("f_distill/sd15", [*others, f"run.dir={tmp_path / 'run'}", "data={name: digits}"])


def test_a_pipeline_of_another_class_is_refused(place: Path, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(GenerativeError, match="class StableDiffusionXLPipeline"):
        train("f_distill/sd15", [*words, f"method.teacher={tmp_path}", f"run.dir={tmp_path / 'run'}"])


def test_captions_with_a_model_that_is_told_none(place: Path) -> None:
    with pytest.raises(GenerativeError, match="makes images without a text"):
        load_run_config("edm/digits", [f"data={{name: captions, images: {place / 'images'}}}"])
