import html
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.report import build_report, write_report
from evaluation.reporting.curves import keep_extremes, smooth
from evaluation.reporting.folder import Run, read_run
from evaluation.reporting.markup import embedded_json
from evaluation.reporting.replay import replay
from evaluation.reporting.table import Table
from generative.errors import RunFolderError
from tests.support.page import HOSTILE, page_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory, fake):
    return page_of(fake.write_run(tmp_path_factory.mktemp("run")))


def test_a_whole_run_shows_everything(whole):
    for text in (
        "masked_diffusion/quickstart",
        "Complete",
        "3.27",
        "± 0.02",
        "bits/byte",
        "400 of 400",
        "Trigram counts",
    ):
        assert text in whole.text
    assert {"learning-0", "noise", "noise-training-denoise", "rate", "gradient", "speed", "memory"} <= set(whole.charts)
    assert [mark["label"] for mark in whole.charts["learning-0"]["marks"]] == ["restart"]
    assert len(json.loads(whole.data)["replays"]) == 2


def test_the_page_loads_nothing(whole):
    for tag, attributes in whole.tags:
        assert not {"src", "srcset", "action", "data"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for t, a in whole.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_validation_points_carry_two_standard_errors(whole):
    points = next(s for s in whole.charts["learning-0"]["series"] if s["kind"] == "points")
    assert len(points["x"]) == 10
    assert np.array(points["high"]) - np.array(points["y"]) == pytest.approx(np.full(10, 0.08), rel=1e-3)


def test_several_updates_have_a_curve_each(tmp_path, fake):
    charts = page_of(fake.write_run(tmp_path, updates=("critic", "student"))).charts
    assert {"learning-0", "learning-1"} <= set(charts)
    assert charts["learning-1"]["title"] == "Learning curve: student"
    assert [s["label"] for s in charts["rate"]["series"]] == ["critic", "student"]


def test_a_folder_with_nothing_in_it_gives_a_page(tmp_path):
    page = page_of(tmp_path)
    assert tmp_path.name in page.text
    assert page.charts == {}


@pytest.mark.parametrize(
    "missing",
    ["metrics.jsonl", "events.jsonl", "status.json", "outcome.json", "evaluation.json", "config.yaml", "samples"],
)
def test_any_part_may_be_missing(tmp_path, fake, missing):
    fake.write_run(tmp_path, steps=40)
    path = tmp_path / missing
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
    assert "Run report" in page_of(tmp_path).text


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1))
def test_any_file_may_be_half_written(tmp_path_factory, fake, share):
    folder = fake.write_run(tmp_path_factory.mktemp("half"), steps=12)
    for path in [*folder.glob("*.json*"), *folder.glob("samples/*")]:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    assert "Run report" in page_of(folder).text


def test_a_half_written_line_is_passed_over_and_counted(tmp_path, fake):
    fake.write_run(tmp_path, steps=40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 41, "loss": {"den')
    run = read_run(tmp_path)
    assert run.damaged == 1
    assert len(run.train.steps) == 40


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ROW_KEYS = st.sampled_from(["step", "time", "loss", "lr", "grad_norm", "metrics", "seconds", "tokens", "message"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(ROW_KEYS, JSON), max_size=4),
    parts=st.dictionaries(
        st.sampled_from(["figures", "loss_by_noise", "model", "items", "state", "step", "steps", "curves"]), JSON
    ),
    figure=st.dictionaries(st.sampled_from(["value", "stderr", "n", "unit", "bound"]), JSON),
)
def test_wrong_types_anywhere_never_stop_the_report(tmp_path_factory, rows, parts, figure):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "samples").mkdir()
    kinds = [{"kind": kind, **row} for row in rows for kind in ("train", "validation", "restart")]
    lines = "".join(json.dumps(row) + "\n" for row in kinds)
    for name in ("metrics.jsonl", "events.jsonl"):
        (folder / name).write_text(lines)
    for name in ("status.json", "outcome.json", "environment.json"):
        (folder / name).write_text(json.dumps(parts))
    (folder / "evaluation.json").write_text(json.dumps({"figures": {"elbo": figure}, **parts}))
    (folder / "samples" / "a.json").write_text(json.dumps({"items": [parts], **parts}))
    page_of(folder)


def test_hostile_strings_stay_text(tmp_path, fake):
    fake.write_run(tmp_path, steps=20, updates=(HOSTILE,))
    item = fake.infill_item() | {"prompt": HOSTILE, "text": HOSTILE}
    item["states"] = [{"call": 1, "text": HOSTILE, "new": [0], "masked": [1]}]
    (tmp_path / "samples" / "step_000020.json").write_text(
        json.dumps({"step": HOSTILE, "model": HOSTILE, "items": [item]})
    )
    hostile = {"value": 1.0, "stderr": 0.1, "n": 3, "unit": HOSTILE, "protocol": HOSTILE}
    (tmp_path / "evaluation.json").write_text(json.dumps({"model": HOSTILE, "figures": {HOSTILE: hostile}}))
    (tmp_path / "status.json").write_text(json.dumps({"config": HOSTILE, "state": HOSTILE, "message": HOSTILE}))
    (tmp_path / "outcome.json").write_text(json.dumps({"state": "failed", "problem": HOSTILE, "remedy": HOSTILE}))
    (tmp_path / "config.yaml").write_text("a: " + HOSTILE.replace("\ud800", ""))
    fake.write_lines(tmp_path / "events.jsonl", [{"kind": "resume", "step": 5, "message": HOSTILE}])
    page = page_of(tmp_path)
    assert page.count("script") == 3
    assert page.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert json.loads(page.data)["replays"][0]["steps"]


@given(JSON)
def test_embedded_json_reads_back_and_cannot_leave_its_element(value):
    try:
        text = embedded_json(value)
    except ValueError:
        return  # not finite: the charts never hand such a number over
    assert not re.search("[<>&]", text)
    assert json.loads(text) == value


def test_a_resumed_run_takes_back_the_steps_that_it_repeats():
    table = Table()
    for step, loss in [(1, 5.0), (2, 4.0), (3, 3.0), (4, 9.0), (3, 3.5)]:
        table.add({"step": step, "loss": {"a": loss}, "curve": [loss, None]})
    table.add({"step": 4})
    steps, values = table.series("loss", "a")
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [5, 4, 3.5])
    assert table.curve(("curve",))[1][:, 0].tolist() == [5, 4, 3.5]
    assert list(table.steps) == [1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30_000), st.integers(20, 2000), st.integers(0, 2**32 - 1))
def test_downsampling_keeps_ends_and_extremes_within_its_limit(n, limit, seed):
    values = np.random.default_rng(seed).standard_cauchy(n)
    kept = keep_extremes(values, limit)
    assert len(kept) <= limit
    assert (kept[0], kept[-1]) == (0, n - 1)
    assert np.all(np.diff(kept) > 0)
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_the_band_covers_the_truth_of_a_trend_with_noise():
    x = np.linspace(0, 1, 2000)
    moving = smooth(3 - x + np.random.default_rng(0).normal(0, 0.2, 2000))
    inside = (moving.low <= 3 - x) & (3 - x <= moving.high)
    assert 0.88 < inside[100:-100].mean() <= 1
    steep = smooth(np.linspace(100, 0, 2000))
    assert (steep.high - steep.low).max() < 0.2


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_smoothing_stays_within_the_values(values):
    moving = smooth(np.array(values))
    slack = 1e-6 * (1 + max(map(abs, values)))
    assert moving.mean.min() >= min(values) - slack
    assert moving.mean.max() <= max(values) + slack
    assert np.all(moving.low <= moving.high)


def test_a_long_run_makes_a_small_page(tmp_path, fake):
    fake.write_run(tmp_path, steps=4_000, updates=("critic", "student"))
    path = write_report(tmp_path)
    assert path.stat().st_size < 3_000_000
    for chart in page_of(tmp_path).charts.values():
        assert max(len(s["x"]) for s in chart["series"]) <= 2000


def test_replay_starts_at_the_prompt_and_ends_at_the_text(fake):
    item = fake.infill_item()
    data = replay(item)
    cells = list(data["start"])
    assert "".join(char for char, _ in cells) == item["prompt"]
    for state, step in zip(item["states"], data["steps"], strict=True):
        assert [p for p, _, masked in step["changes"] if not masked] == state["new"]
        for place, char, masked in step["changes"]:
            cells[place] = (char, masked)
        assert [p for p, (_, masked) in enumerate(cells) if masked] == state["masked"]
    assert "".join(char for char, _ in cells) == item["text"]


def test_a_sample_without_a_prompt_starts_all_masked(fake):
    states = [{"call": 1, "text": "a▁", "new": [0], "masked": [1]}, {"call": 2, "text": "ab", "new": [1], "masked": []}]
    assert replay({"kind": "sample", "prompt": "", "states": states})["start"] == [("▁", 1), ("▁", 1)]


def test_a_prompt_of_long_tokens_is_no_row_of_cells():
    states = [
        {"call": 1, "text": "ca▁", "new": [1], "masked": [2]},
        {"call": 2, "text": "cab", "new": [2], "masked": []},
    ]
    start = [("c", 0), ("▁", 1), ("▁", 1)]
    assert replay({"kind": "infill", "prompt": "c▁▁", "states": states})["start"] == start
    assert replay({"kind": "infill", "prompt": "cat", "states": states})["start"] == start
    assert replay({"kind": "infill", "truth": "cat bat", "truth_cells": "cb", "states": states})["truth"] == "cb"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({"state": "failed", "problem": "loss is nan", "remedy": "lower lr"}, ["Failed", "loss is nan", "lower lr"]),
        ({"state": "interrupted"}, ["Interrupted", "same command"]),
    ],
)
def test_a_run_that_did_not_end_well_says_why_and_what_to_do(tmp_path, fake, outcome, words):
    fake.write_run(tmp_path, steps=20)
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    text = page_of(tmp_path).text
    assert all(word in text for word in words)


def test_a_running_run_without_a_sign_of_life_is_called_so(tmp_path, fake):
    fake.write_run(tmp_path, steps=20, state="running")
    text = page_of(tmp_path).text
    assert "Lost" in text
    assert "no sign of life" in text


def test_the_data_are_named_before_and_after_the_evaluation(tmp_path, fake):
    fake.write_run(tmp_path, steps=20)
    (tmp_path / "config.yaml").write_text("data:\n  name: files\n  path: books\n")
    assert "files books" in page_of(tmp_path).text
    record = fake.evaluation() | {"data": "held-out part of files books, bytes tokens, windows of 128"}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    assert "Datafiles books, bytes tokens, windows of 128" in page_of(tmp_path).text
    for text in ("data: [", "data: 3", "data: {name: [1], path: {a: b}}"):
        (tmp_path / "config.yaml").write_text(text)
        (tmp_path / "evaluation.json").unlink(missing_ok=True)
        assert "files books" not in page_of(tmp_path).text


@pytest.mark.parametrize(("memory", "words"), [(None, "measured on the worker's threads"), (3.5, "published dense")])
def test_the_share_of_the_machine_says_what_it_is_a_share_of(tmp_path, fake, memory, words):
    rows = [{"kind": "train", "step": s, "loss": {"a": 1.0}, "mfu": 0.4, "device_memory_gb": memory} for s in (1, 2)]
    fake.write_lines(tmp_path / "metrics.jsonl", rows)
    note = page_of(tmp_path).charts["mfu"]["note"]
    assert words in note
    assert "without recomputation" in note


def test_samples_that_were_asked_for_are_not_the_runs_own(tmp_path, fake):
    fake.write_run(tmp_path, steps=20)
    (tmp_path / "samples" / "asked").mkdir()
    item = {"kind": "sample", "prompt": "", "text": "ASKED FOR", "states": []}
    (tmp_path / "samples" / "asked" / "step_000020.json").write_text(json.dumps({"step": 20, "items": [item]}))
    assert "ASKED FOR" not in page_of(tmp_path).text


def test_the_newest_samples_are_those_of_the_highest_step(tmp_path, fake):
    fake.write_run(tmp_path, steps=20)
    for step in (999_000, 1_001_000):
        item = {"kind": "sample", "prompt": "", "text": f"text {step}", "states": []}
        (tmp_path / "samples" / f"step_{step:06d}.json").write_text(json.dumps({"step": step, "items": [item]}))
    assert "Drawn after step 1001000" in page_of(tmp_path).text


def test_a_headline_whose_error_is_not_known_says_so(tmp_path, fake):
    fake.write_run(tmp_path, steps=20)
    record = {"figures": {"elbo": {"value": 3.274, "stderr": None, "n": 1, "unit": "bits/byte"}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    assert "3.274 (no error known) bits/byte" in page_of(tmp_path).text


def test_before_the_evaluation_the_headline_is_the_validation_then_the_loss(tmp_path, fake):
    fake.write_run(tmp_path, steps=40)
    (tmp_path / "evaluation.json").unlink()
    assert "Validation loss" in page_of(tmp_path).text
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(line for line in lines if '"train"' in line))
    assert "Training loss" in page_of(tmp_path).text


def test_a_missing_folder_and_an_unwritable_one_are_clear_errors(tmp_path):
    with pytest.raises(RunFolderError, match="no such run folder"):
        write_report(tmp_path / "absent")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_without_rows_has_a_page_in_memory(tmp_path):
    assert html.escape(tmp_path.name) in build_report(Run(tmp_path))
