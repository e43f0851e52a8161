"""Cards of runs, complete or not, and the page over them."""

import base64
import json
import re
import time

import pytest

from evaluation.gallery import build_gallery, write_gallery
from evaluation.reporting.card import TOO_LARGE, Card, chief, run_card
from evaluation.reporting.folder import Run, read_run
from evaluation.reporting.other_report import report_card
from evaluation.reporting.sounds import Room
from evaluation.restoration_report import build_restoration_report
from generative.errors import RunFolderError
from tests.support.page import HOSTILE, Page

ROOM = 10**7


def card_of(folder, room=ROOM, **more):
    return run_card(read_run(folder), more.pop("about", ""), Room(room), **more)


def page(here, *cards, others=()):
    return Page(build_gallery(cards, others, "runs", here))


def test_a_card_of_texts_has_figures_with_errors_and_a_sample(tmp_path, fake):
    (tmp_path / "run").mkdir()
    card = card_of(fake.write_run(tmp_path / "run"), about="A small model.")
    assert (card.title, card.kind, card.state) == ("masked_diffusion/quickstart", "masked diffusion", "complete")
    assert card.figures[0] == ("ELBO", "3.27 ± 0.02 bits/byte", "upper bound")
    assert [name for name, _, _ in card.figures[1:]] == ["Trigram counts", "Bigram counts", "Unigram counts"]
    assert "n = 96" in card.protocol
    assert card.seconds == pytest.approx(400 * 0.17)
    assert card.facts == {
        "Steps": "400 of 400",
        "Training time": "1 min 08 s",
        "Workers": "2",
        "Restarts": "1, 3.4 s lost",
    }
    shown = page(tmp_path, card)
    for text in ("A small model.", "3.27\u00a0±\u00a00.02 bits/byte", "def get(self, name):", "Complete", "1 min 08 s"):
        assert text in shown.text


def test_a_card_of_images_has_the_newest_picture(tmp_path, fake):
    card = card_of(fake.write_images(tmp_path))
    (picture,) = re.findall(r"data:image/png;base64,([^\"]+)", card.shown)
    assert base64.b64decode(picture) == (tmp_path / "samples" / "step_000100.png").read_bytes()
    assert card.figures[0][:2] == ("FID", "12.3 ± 0.4")
    assert {name for name, _, _ in card.figures[1:]} <= {"Modes", "KL of the modes to uniform", "Coverage", "Recall"}


def test_a_card_of_speech_has_players_and_the_page_may_play_them(tmp_path, fake):
    card = card_of(fake.write_speech(tmp_path))
    shown = page(tmp_path, card)
    assert shown.count("audio") == 3
    policy = next(a["content"] for t, a in shown.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "media-src data:" in policy
    assert "media-src" not in next(
        a["content"] for t, a in page(tmp_path).tags if "content" in a and "src" in a["content"]
    )


@pytest.mark.parametrize("state", ["interrupted", "failed", "running"])
def test_an_unfinished_run_is_shown_as_such(tmp_path, fake, state):
    fake.write_run(tmp_path, steps=40)
    for name in ("evaluation.json", "outcome.json"):
        (tmp_path / name).unlink()
    status = {"state": state, "step": 40, "steps": 400, "heartbeat": time.time(), "eta_seconds": 30}
    (tmp_path / "status.json").write_text(json.dumps(status))
    card = card_of(tmp_path)
    assert (card.state, card.report) == (state, None)
    assert card.figures[0][0] == "Validation loss"
    assert "has not been written yet" in card.protocol
    text = page(tmp_path, card).text
    assert state.capitalize() in text
    assert "40 of 400" in text
    assert "No report yet." in text


def test_a_folder_with_nothing_but_a_name_gives_a_card(tmp_path):
    card = card_of(tmp_path)
    assert (card.title, card.state, card.shown, list(card.figures)) == (tmp_path.name, "unknown", "", [])
    assert "No figure yet" in page(tmp_path, card).text
    assert chief(Run(tmp_path), 4) == []


def test_links_are_relative_to_the_page(tmp_path, fake):
    run = tmp_path / "runs" / "a method" / "x:1"
    run.mkdir(parents=True)
    fake.write_run(run, steps=12)
    (run / "report.html").write_text("")
    for here, expected in (
        (tmp_path / "runs", "a%20method/x%3A1/report.html"),
        (tmp_path / "out", "../runs/a%20method/x%3A1/report.html"),
    ):
        links = [a["href"] for t, a in page(here, card_of(run)).tags if t == "a" and "report" in a["href"]]
        assert links == [expected] * 2


def test_the_page_loads_nothing(tmp_path, fake):
    cards = []
    for name, write in (("text", fake.write_run), ("image", fake.write_images), ("speech", fake.write_speech)):
        (tmp_path / name).mkdir()
        cards.append(card_of(write(tmp_path / name)))
    shown = page(tmp_path, *cards)
    for tag, attributes in shown.tags:
        assert not {"srcset", "action", "data"} & set(attributes), tag
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert shown.text.count("Training time of all") == 1


def test_what_runs_say_cannot_break_the_page(tmp_path, fake):
    fake.write_run(tmp_path, steps=12)
    (tmp_path / "status.json").write_text(json.dumps({"state": HOSTILE, "config": HOSTILE, "step": HOSTILE}))
    (tmp_path / "outcome.json").unlink()
    (tmp_path / "config.yaml").write_text(f"method: {{name: {json.dumps(HOSTILE)}}}")
    drawn = {"step": 12, "items": [{"kind": "sample", "text": HOSTILE}]}
    (tmp_path / "samples" / "step_000012.json").write_text(json.dumps(drawn))
    shown = page(tmp_path, card_of(tmp_path, about=HOSTILE, place=HOSTILE))
    assert (shown.count("script"), shown.count("img")) == (page(tmp_path).count("script"), 0)


def test_pictures_have_a_limit_of_bytes(tmp_path, fake):
    fake.write_images(tmp_path)
    size = (tmp_path / "samples" / "step_000100.png").stat().st_size
    room = Room(2 * size)
    found = [run_card(read_run(tmp_path), "", room).shown for _ in range(3)]
    assert ["<img" in one for one in found] == [True, True, False]
    assert TOO_LARGE in found[2]


def test_a_room_is_no_larger_than_what_it_is_a_part_of():
    whole = Room(10)
    part = Room(6, whole)
    assert not part.takes(bytes(7))
    assert part.takes(bytes(5))
    assert (part.left, whole.left) == (1, 5)
    assert not Room(100, whole).takes(bytes(6))
    assert whole.left == 5


def test_another_report_says_what_it_is(tmp_path, fake):
    (tmp_path / "0000").mkdir()
    files = ["truth.png", "measurement.png", *(f"sample_{i}.png" for i in range(4)), "mean.png", "std.png"]
    for index, name in enumerate(files):
        (tmp_path / "0000" / name).write_bytes(fake.png(8, 8, shade=20 * index))
    line = {
        "file": "0000.png",
        "files": files,
        "spread_max": 0.5,
        "residual": [1.0],
        "cost": {"rows": 3},
        "seconds": 2.0,
    }
    told = {"prior": "a small one", "method": "stsl: <settings>"}
    report = tmp_path / "report.html"
    report.write_text(build_restoration_report(tmp_path, [line], told))
    card = report_card(report, Room(ROOM))
    assert (card.title, card.kind, card.state) == ("1 image restored", "Restoration report", "")
    assert card.facts == told
    assert card.shown.count("<img") == 6
    shown = page(tmp_path, others=[card])
    assert "Reports of other commands" in shown.text
    assert [a["href"] for t, a in shown.tags if t == "a" and "report" in a["href"]] == ["report.html"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<p class=eyebrow>Not in a header</p><h1>x</h1>",
        "<header><h1>no kind</h1></header>",
        "<header><p class=eyebrow>K</p>",
        "\x00\xff",
    ],
)
def test_a_page_of_others_is_left_out(tmp_path, text):
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    assert report_card(tmp_path / "report.html", Room(ROOM)) is None
    assert report_card(tmp_path / "nothing.html", Room(ROOM)) is None


@pytest.mark.parametrize("source", ["http://x/y.png", "data:image/png;base64,@@", "data:image/png;base64,AAAA", None])
def test_pictures_of_a_report_are_whole_png_files(tmp_path, source):
    picture = f'<img src="{source}">' if source else "<img>"
    (tmp_path / "report.html").write_text(
        f"<header><p class=eyebrow>K</p><h1>T{HOSTILE[:20]}</h1><dl><dd>stray</dd></dl></header>{picture}",
        "utf-8",
        "replace",
    )
    card = report_card(tmp_path / "report.html", Room(ROOM))
    assert (card.kind, card.title[0], card.shown, card.facts) == ("K", "T", "", {})


def test_the_page_is_written_whole_or_not(tmp_path):
    path = tmp_path / "gallery.html"
    write_gallery(path, [Card("name", "method", state="complete")], [], "runs")
    assert [file.name for file in tmp_path.iterdir()] == ["gallery.html"]
    assert "1 run" in path.read_text()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_gallery(tmp_path / "nope" / "gallery.html", [], [], "runs")
