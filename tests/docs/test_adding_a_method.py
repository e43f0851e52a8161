"""The method of docs/adding_a_method.md, built from the page's own blocks in a copy of the program, and trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.documents import ROOT, blocks

PAGE = ROOT / "docs" / "adding_a_method.md"
PLACE = re.compile(r"# in (\S+), (above|instead of): (.+)")

DRIVER = """
import runpy, sys
from launch.cli import main

for name, test in runpy.run_path("tests/generative/methods/flow/test_method.py").items():
    if name.startswith("test_"):
        test()
        print("passed", name)
few = ["evaluate.samples=200", "sample.count=9", "sample.monitor=40", "launch.backend=local", "launch.workers=1"]
every = ["train.validation.every_steps=20", "train.checkpoint.every_steps=20"]
words = ["data.size=2000", "train.batch_size=64", *every, *few]
bare = ["evaluate.at_end=false", "sample.at_end=false", "train.micro_batch_size=16"]
for verb in (
    ["train", "flow/quickstart", "train.steps=40", "run.dir=run", *words],
    ["train", "flow/quickstart", "train.steps=40", "run.dir=split", *words, *bare],
    ["sample", "run", "--count", "5"],
    ["export", "run", "--to", "exported", "--weights", "ema"],
    ["config", "show", "flow/quickstart"],
):
    assert main(verb) == 0, verb
"""


def put(block: str, root: Path) -> Path:
    """Does with a block what its first line says: a new file, or a line more or another in one that is there."""
    first, _, body = block.partition("\n")
    place = PLACE.fullmatch(first)
    if place is None:
        target = root / first.removeprefix("# ")
        assert not target.exists()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(body, encoding="utf-8")
        return target
    name, how, mark = place.groups()
    target = root / name
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.strip().startswith(mark))
    if how == "above":
        lines.insert(at, body)
    else:
        lines[at] = body
    target.write_text("".join(lines), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with what the page adds."""
    root = tmp_path_factory.mktemp("program")
    for name in ("generative", "evaluation", "launch", "configs"):
        shutil.copytree(ROOT / name, root / name)
    written = [put(block, root) for language in ("python", "yaml") for block in blocks(PAGE, language)]
    (root / "generative" / "methods" / "flow" / "__init__.py").write_text('"""Flow matching."""\n')
    assert len(set(written)) == 6
    return root


@pytest.mark.timeout(600)
def test_the_method_of_the_page_trains(program: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=program,
        env=os.environ | {"PYTHONPATH": str(program)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    assert told.stdout.count("passed test_") == 2
    assert "Of Euler's method" in (program / "generative/methods/flow/config.py").read_text()

    def curve(run: str) -> list[float]:
        lines = [json.loads(line) for line in (program / run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"]["match"] for line in lines if line["kind"] == "train"]

    whole, split = curve("run"), curve("split")
    assert whole[-1] < 0.8 * whole[0]
    assert split == pytest.approx(whole, rel=1e-5)
    assert json.loads((program / "run" / "outcome.json").read_text())["state"] == "complete"
    figures = json.loads((program / "run" / "evaluation.json").read_text())["figures"]
    assert figures.keys() == {"modes", "high_quality", "mode_kl"}
    assert (program / "run" / "report.html").stat().st_size > 10_000
    assert json.loads((program / "exported" / "config.json").read_text())["method"]["name"] == "flow"


def test_the_configuration_of_the_page_says_what_to_expect(program: Path) -> None:
    text = (program / "configs" / "flow" / "quickstart.yaml").read_text()
    assert text.startswith("# Flow matching")
    assert yaml.safe_load(text)["method"] == {"name": "flow"}
