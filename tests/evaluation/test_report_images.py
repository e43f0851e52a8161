"""The report of a run that makes images: pictures, what was watched, the terms of a GAN's losses."""

import base64
import json
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.figure_names import KNOWN_FIGURES, chief_figures, out_of
from evaluation.image_monitor import Neighbourhood, alarms
from evaluation.reporting.pictures import MAX_BYTES, MAX_SIDE, png_size
from tests.support.page import HOSTILE, page_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fake):
    return fake.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(folder):
    return page_of(folder)


def pictures(page):
    return [attributes for tag, attributes in page.tags if tag == "img"]


def samples_of(folder, items, step=7):
    (folder / "samples").mkdir(exist_ok=True)
    record = {"step": step, "model": "ema 0.9", "items": items}
    (folder / "samples" / f"step_{step:06d}.json").write_text(json.dumps(record))


def grid(file, **more):
    return {"kind": "grid", "file": file, "title": "4 samples", "count": 4, "columns": 2, **more}


# ---------------------------------------------------------------------- pictures


def test_the_newest_grid_is_large_and_the_earlier_ones_follow_from_the_first_on(folder, whole):
    names = ["step_000100", "step_000025", "step_000050", "step_000075", "step_000100_neighbours"]
    for picture, name in zip(pictures(whole), names, strict=True):
        head, _, data = picture["src"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == (folder / "samples" / f"{name}.png").read_bytes()
    newest, *earlier, neighbours = pictures(whole)
    assert (newest["width"], newest["height"], newest["class"]) == ("526", "526", "crisp")
    assert [(p["width"], p["height"]) for p in earlier] == [("200", "200")] * 3
    assert newest["alt"] == "64 samples after step 100"
    assert neighbours["alt"] == "9 samples after step 100"
    assert "Drawn after step 100, weights: ema 0.998." in whole.text
    assert "A copy would look equal to the image below it" in whole.text


def test_pictures_are_the_only_thing_that_the_policy_adds(whole):
    policy = next(a["content"] for t, a in whole.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert [part.split() for part in policy.split(";") if "img-src" in part] == [["img-src", "data:"]]
    assert "unsafe" not in policy
    for tag, attributes in whole.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,"), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes)


@pytest.mark.parametrize(
    "name",
    ["../out.png", "sub/in.png", "/out.png", "..", ".", "", ".hidden.png", "a\\b.png", "\0", 5, None, ["in.png"], {}],
)
def test_names_that_lead_elsewhere_are_left_out(tmp_path, fake, name):
    run = tmp_path / "run"
    for place in (run / "samples" / "sub" / "in.png", run / "out.png", run / "samples" / ".hidden.png"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(fake.png())
    samples_of(run, [grid(name)])
    assert pictures(page_of(run)) == []


def contents(fake):
    whole = fake.png()
    return {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "html": b"<script>alert(1)</script>",
        "empty": b"",
        "cut off": whole[:-5],
        "signature alone": whole[:8],
        "too large": fake.png(noise=MAX_BYTES),
        "too wide": fake.png(MAX_SIDE + 1, 1),
        "no pixels": fake.png(0, 3),
    }


@pytest.mark.parametrize(
    "kind", ["svg", "html", "empty", "cut off", "signature alone", "too large", "too wide", "no pixels"]
)
def test_files_that_are_no_whole_png_of_a_fair_size_are_left_out(tmp_path, fake, kind):
    samples_of(tmp_path, [grid("a.png"), grid("b.png")])
    (tmp_path / "samples" / "a.png").write_bytes(contents(fake)[kind])
    (tmp_path / "samples" / "b.png").write_bytes(fake.png())
    assert [p["src"] for p in pictures(page_of(tmp_path))] == [
        f"data:image/png;base64,{base64.b64encode(fake.png()).decode()}"
    ]


def test_links_pipes_and_folders_are_left_out(tmp_path, fake):
    run = tmp_path / "run"
    run.mkdir()
    samples_of(run, [grid("link.png"), grid("pipe.png"), grid("folder.png"), grid("absent.png")])
    (tmp_path / "private.png").write_bytes(fake.png())
    (run / "samples" / "link.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(run / "samples" / "pipe.png")
    (run / "samples" / "folder.png").mkdir()
    assert pictures(page_of(run)) == []


def test_where_the_newest_picture_is_missing_the_one_before_it_stands_there(tmp_path, fake):
    fake.write_images(tmp_path)
    (tmp_path / "samples" / "step_000100.png").unlink()
    page = page_of(tmp_path)
    assert pictures(page)[0]["alt"] == "64 samples after step 75"
    assert "Drawn after step 75" in page.text


def test_hostile_titles_stay_text(tmp_path, fake):
    samples_of(tmp_path, [grid("a.png", title=HOSTILE), grid("a.png", title=3)], step=3)
    (tmp_path / "samples" / "a.png").write_bytes(fake.png())
    page = page_of(tmp_path)
    assert page.count("script") == 3
    assert [p["alt"] for p in pictures(page)] == [
        f"{HOSTILE.replace(chr(0xD800), '?')} after step 3",
        "Samples after step 3",
    ]
    assert HOSTILE.replace("\ud800", "?")[:-8] in page.text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_have_a_size_or_none(fake, data):
    assert png_size(data) is None
    found = png_size(fake.png()[:16] + data[:8].ljust(8, b"\0") + fake.png()[24:])
    assert found is None or all(0 < side <= MAX_SIDE for side in found)


def test_a_text_run_has_no_picture_and_no_alarm(tmp_path, fake):
    fake.write_run(tmp_path, steps=20)
    fake.write_lines(tmp_path / "events.jsonl", [{"kind": "warning", "step": 20, "message": "the disk is slow"}])
    page = page_of(tmp_path)
    assert pictures(page) == []
    assert not any("alarm" in (a.get("class") or "") for _, a in page.tags)
    assert "metric-denoise-masked_fraction" in page.charts


# ---------------------------------------------------------------------- what was watched


def told_from(chart, samples):
    """Whether the line that is drawn is where alarms begin, among so many samples."""
    (level,) = set(chart["series"][-1]["y"])
    seen = {"samples": samples, "k": 5, "to_training": 1.0, "among_generated": 1.0, "among_training": 1.0}
    seen |= {"coverage": 0.97, "near_copies": 0.0, "nearest": torch.zeros(1)}
    told = [alarms(Neighbourhood(near_duplicates=share, **seen)) for share in (level - 1e-3, level + 1e-3)]
    return [len(each) for each in told] == [0, 1]


def test_the_line_of_copies_is_that_of_as_many_samples_as_are_watched(tmp_path, fake):
    fake.write_images(tmp_path)
    (tmp_path / "config.yaml").write_text("sample: {monitor: 300}\n")
    page = page_of(tmp_path)
    assert told_from(page.charts["watch-copies"], 300)
    assert "the closest 5 % of training samples" in page.text


def test_measurements_have_charts_with_the_level_of_the_alarm(whole):
    coverage, distances, copies = (whole.charts[f"watch-{name}"] for name in ("coverage", "distances", "copies"))
    assert coverage["series"][0]["x"] == [25, 50, 75, 100]
    assert coverage["series"][0]["y"] == [0.25, 0.5, 0.75, 1]
    assert coverage["marks"] == [{"x": 25, "label": "alarm"}]
    assert [s["label"] for s in distances["series"]] == ["generated to training", "among generated", "among training"]
    assert [s["label"] for s in copies["series"]] == ["near-duplicates", "copies", "alarm from"]
    assert told_from(copies, 1000)
    # Half of the coverage that equal distributions give with 5 neighbours among 1,000 (Naeem et al. 2020).
    level = 0.5 * (1 - math.prod((1000 - i) / (2000 - i) for i in range(1, 6)))
    assert coverage["series"][-1]["y"] == pytest.approx([level, level], abs=1e-3)


def test_alarms_stand_in_the_head_each_once_with_what_followed(tmp_path, fake):
    fake.write_images(tmp_path)
    assert "One alarm while samples were watched. The samples at step 100, the newest measured, raised none." in (
        page_of(tmp_path).text
    )
    collapse = {"kind": "warning", "step": 100, "message": f"mode coverage 0.1 {HOSTILE}"}
    elsewhere = {"kind": "warning", "step": 60, "message": "the disk is slow"}
    fake.write_lines(tmp_path / "events.jsonl", [collapse, elsewhere, collapse])
    page = page_of(tmp_path)
    assert page.count("script") == 3
    head = page.text[: page.text.index("FID")]
    assert "One alarm while samples were watched.Step 100: mode coverage 0.1" in head
    assert "raised none" not in head
    assert "the disk is slow" not in head
    fake.write_lines(tmp_path / "events.jsonl", [elsewhere])
    assert "alarm while" not in page_of(tmp_path).text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.just(HOSTILE) | st.just("a.png"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["coverage", "x"]), inner, max_size=3),
    max_leaves=6,
)
ITEM = st.fixed_dictionaries(
    {"kind": st.sampled_from(["grid", "neighbours"]), "file": JSON, "title": JSON, "count": JSON}
)


@settings(max_examples=40, deadline=None)
@given(
    items=st.lists(ITEM, max_size=3),
    step=JSON,
    rows=st.lists(st.fixed_dictionaries({"step": JSON | st.integers(0, 3), "metrics": JSON}), max_size=3),
    figures=st.dictionaries(st.sampled_from(list(KNOWN_FIGURES)), JSON | st.fixed_dictionaries({"value": JSON})),
    data=JSON,
)
def test_wrong_types_anywhere_never_stop_the_report(tmp_path_factory, fake, items, step, rows, figures, data):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "samples").mkdir()
    (folder / "samples" / "a.png").write_bytes(fake.png())
    (folder / "samples" / "a.json").write_text(json.dumps({"items": items, "step": step, "model": step}))
    lines = [{"kind": kind, **row} for row in rows for kind in ("monitor", "warning", "train")]
    fake.write_lines(folder / "metrics.jsonl", lines)
    fake.write_lines(folder / "events.jsonl", [line | {"message": step} for line in lines])
    (folder / "evaluation.json").write_text(json.dumps({"figures": figures, "data": data}))
    page = page_of(folder)
    assert page.count("script") == 3


# ---------------------------------------------------------------------- learning and figures


def test_curves_of_a_gan_have_sensible_names_and_no_number_is_left_out(whole):
    assert [whole.charts[f"learning-{i}"]["title"] for i in range(3)] == [
        "Learning curve: discriminator",
        "Learning curve: generator",
        "Learning curve: discriminator, further updates",
    ]
    titles = {id: chart["title"] for id, chart in whole.charts.items() if id.startswith("metric-")}
    assert titles == {
        "metric-discriminator-adversarial": "Adversarial term: discriminator",
        "metric-discriminator-dlle": "DLLE: discriminator",
        "metric-discriminator-disomap": "DIsoMap: discriminator",
        "metric-discriminator-r1": "R1 penalty: discriminator",
        "metric-discriminator-entropy": "Entropy: discriminator",
        "metric-discriminator-entropy_weight": "Weight of the entropy: discriminator",
        "metric-discriminator-real": "Scores: discriminator",
        "metric-generator-adversarial": "Adversarial term: generator",
        "metric-generator-fake": "Score of generated samples: generator",
        "metric-generator-entropy": "Entropy: generator",
    }
    lines = [s["label"] for s in whole.charts["metric-discriminator-real"]["series"] if s["kind"] == "line"]
    assert lines == [
        "real samples",
        "generated samples",
        "real samples, further updates",
        "generated samples, further updates",
    ]
    assert [s["label"] for s in whole.charts["rate"]["series"]] == ["discriminator", "generator"]


def test_the_headline_of_images_is_the_fid_and_says_which_way_is_better(whole):
    head = whole.text[: whole.text.index("Steps")]
    assert "FID, upper bound12.3 ± 0.4" in head
    assert "Lower is better: 0 where both sets have one distribution." in head
    assert "Modes985 ± 3 of 1,000higher is better" in head
    assert "baseline" not in whole.text
    assert "Datastacked digits" in whole.text


def test_without_a_fid_the_first_figure_leads(tmp_path, fake):
    fake.write_images(tmp_path)
    record = fake.image_evaluation()
    del record["figures"]["fid"]
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    text = page_of(tmp_path).text
    assert "Modes985 ± 3 of 1,000Higher is better." in text


def test_before_the_evaluation_the_headline_is_the_newest_coverage(tmp_path, fake):
    fake.write_images(tmp_path)
    (tmp_path / "evaluation.json").unlink()
    text = page_of(tmp_path).text
    assert "Coverage1 (no error known)Higher is better: at most 1." in text
    assert "of samples drawn at step 100; the evaluation has not been written yet" in text


def test_a_protocol_that_holds_for_the_row_above_too_is_said_once(whole):
    table = whole.text[whole.text.index("Value ± standard error") :]
    assert table.count("KL of a perfect sampler") == 1
    assert table.count("k=5, <") == 1
    assert table.count("as above") == 2


def test_lower_is_better_for_distances_and_higher_for_shares():
    assert {key for key, name in KNOWN_FIGURES.items() if name.better == "lower"} == {
        "fid",
        "kid",
        "mode_kl",
        "level_error",
        "noisy_level_error",
    }
    assert KNOWN_FIGURES["fid"].inline == "FID"
    assert KNOWN_FIGURES["inception_score"].inline == "inception score"
    assert KNOWN_FIGURES["f8"].inline == "PRD F8 (recall)"


def test_chief_figures_and_totals():
    assert chief_figures(["modes", "kid", "fid"]) == ["fid", "modes"]
    assert chief_figures(["kid", "f8"]) == ["kid"]
    assert out_of("modes", "2,500 points, 8 modes, high quality < 3 std") == "of 8"
    assert out_of("mode_kl", "8 modes") == out_of("modes", "some") == ""
