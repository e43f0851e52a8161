"""Opens the report in headless Chromium: no script error, no empty chart, controls that work."""

import base64
import hashlib
import json
import re
import shutil

import pytest

from evaluation.report import write_report
from tests.support.chromium import chromium

pytestmark = pytest.mark.browser

DRIVER = """<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const seen = { readouts: {}, log: {}, player: [] };
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const plot = figure.querySelector(".plot");
    press(plot, "End"); press(plot, "ArrowLeft");
    seen.readouts[figure.dataset.chart] = [...figure.querySelectorAll(".read")].map((n) => n.textContent);
    const button = figure.querySelector(".switch");
    if (button) {
      button.click();
      seen.log[figure.dataset.chart] = JSON.parse(document.body.dataset.charts)[figure.dataset.chart];
    }
    const { left, top, width } = plot.getBoundingClientRect();
    plot.dispatchEvent(new PointerEvent("pointermove", { clientX: left + width / 2, clientY: top, bubbles: true }));
  }
  const text = () => document.querySelector("#player .tokens").textContent;
  const status = () => document.querySelector("#player .status").textContent;
  const button = (label) => document.querySelector(`#player button[aria-label="${label}"]`);
  seen.player.push([status(), text()]);
  button("One step on").click();
  seen.player.push([status(), document.querySelectorAll("#player .fresh").length]);
  button("To the start").click();
  button("Play").click();
  await wait(15000);
  seen.player.push([status(), text()]);
  document.getElementById("theme").click();
  document.body.dataset.driven = JSON.stringify(seen);
})();
</script></body>"""


LISTENER = """<script>
addEventListener("load", async () => {
  const players = [...document.querySelectorAll("audio")];
  const known = (player) => new Promise((done) => player.addEventListener("loadedmetadata", done));
  await Promise.all(players.map((player) => player.readyState || known(player)));
  document.body.dataset.seconds = JSON.stringify(players.map((player) => Math.round(player.duration * 1000) / 1000));
});
</script></body>"""


GAPS = """<script>
addEventListener("load", () => {
  const found = (select) => [...document.querySelectorAll(`figure ${select}`)];
  const pieces = found("path").map((path) => path.getAttribute("d").split("M").length - 1);
  const ticks = found("text[text-anchor]:not([dy]):not(.name)").map((text) => text.textContent);
  document.body.dataset.seen = JSON.stringify({ pieces, alone: found("circle").length, ticks });
});
</script></body>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open a page and return the attributes that its script left on <body>."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no headless browser: none of {', '.join(names)} is on PATH")
    with chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield lambda path, width=1280, budget=3000: browser.attributes(path, width, budget)


def assert_sound(body):
    assert body.get("data-errors") == "0", body.get("data-error-text", "the script did not run")
    charts = json.loads(body["data-charts"])
    assert all(points > 0 for points in charts.values()), charts
    return charts


@pytest.mark.parametrize("width", [390, 1280])
def test_a_whole_run_draws_every_chart_without_an_error(tmp_path, fake, browse, width):
    charts = assert_sound(browse(write_report(fake.write_run(tmp_path)), width))
    assert {"learning-0", "noise", "noise-training-denoise", "rate", "gradient", "speed", "memory"} <= set(charts)
    assert charts["learning-0"] > 400


def test_controls_work(tmp_path, fake, browse):
    path = write_report(fake.write_run(tmp_path))
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text(encoding="utf-8"))
    path.write_text(page.replace("</body>", DRIVER), encoding="utf-8")
    body = browse(path, budget=20_000)
    assert_sound(body)
    seen = json.loads(body["data-driven"])
    assert all(any(texts) for texts in seen["readouts"].values())
    assert seen["log"]["learning-0"] > 400
    start, stepped, played = seen["player"]
    text = fake.text
    assert start[0] == f"Start: {len(text) // 3} masked" or start[0].endswith("masked")
    assert start[1].count("\u00a0") == int(start[0].split()[1])
    assert f"{stepped[1]} committed" in stepped[0]
    assert played[1] == text
    assert "as in the original" in played[0]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_bin_without_samples_is_a_gap_in_line_and_band(tmp_path, fake, browse, width):
    edges = [0.01 * 2**k for k in range(8)]
    rows = [
        {"kind": "train", "step": step, "metrics": {"a": {"ess_by_time": [0.1, 0.2, None, step / 9, None, 0.5, 0.6]}}}
        for step in (1, 2)
    ]
    fake.write_lines(tmp_path / "metrics.jsonl", rows)
    told = {"ess_by_time": {"label": "noise level", "edges": edges, "log": True}}
    (tmp_path / "status.json").write_text(json.dumps({"curves": told}))
    path = write_report(tmp_path)
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text(encoding="utf-8"))
    path.write_text(page.replace("</body>", GAPS), encoding="utf-8")
    body = browse(path, width)
    assert assert_sound(body) == {"noise-training-a-ess_by_time": 2 * 5}
    seen = json.loads(body["data-seen"])
    assert seen["pieces"] == [3] * 4  # line and band of two parts of the training
    assert seen["alone"] == 2
    assert seen["ticks"][0] == "0.01"
    assert len(seen["ticks"]) == len(edges) or width == 390


@pytest.mark.parametrize("kind", ["empty", "one step", "hostile", "two updates"])
def test_unusual_runs_draw_without_an_error(tmp_path, fake, browse, kind):
    hostile = "</script><script>throw 1</script><b onclick=x>`${1}`\\"
    if kind == "one step":
        fake.write_run(tmp_path, steps=1)
    elif kind != "empty":
        fake.write_run(tmp_path, steps=30, updates=(hostile,) if kind == "hostile" else ("critic", "student"))
    assert_sound(browse(write_report(tmp_path)))


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_are_shown_under_the_policy(tmp_path, fake, browse, width):
    body = browse(write_report(fake.write_images(tmp_path)), width)
    assert {"watch-coverage", "watch-distances", "watch-copies"} <= set(assert_sound(body))
    assert json.loads(body["data-pictures"]) == [263, 263, 263, 263, 329]


def test_a_picture_that_cannot_be_drawn_would_be_seen(tmp_path, fake, browse):
    fake.write_images(tmp_path, every=100)
    content = fake.png(50, 40)
    (tmp_path / "samples" / "step_000100.png").write_bytes(content[:33] + bytes(8) + content[-12:])
    body = browse(write_report(tmp_path))
    assert json.loads(body["data-pictures"])[0] == 0 or int(body["data-errors"]) > 0


def test_a_picture_from_elsewhere_is_refused(tmp_path, fake, browse):
    path = write_report(fake.write_images(tmp_path, every=100))
    (tmp_path / "other.png").write_bytes(fake.png())
    page = path.read_text(encoding="utf-8").replace(
        "</main>", f'<img src="{(tmp_path / "other.png").as_uri()}"></main>'
    )
    path.write_text(page, encoding="utf-8")
    body = browse(path)
    assert json.loads(body["data-pictures"])[-1] == 0
    assert "policy: img-src" in body["data-error-text"]


@pytest.mark.parametrize("width", [390, 1280])
def test_sounds_are_played_under_the_policy(tmp_path, fake, browse, width):
    path = write_report(fake.write_speech(tmp_path))
    listener = LISTENER.removeprefix("<script>").partition("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(listener.encode()).digest()).decode()
    page = path.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    path.write_text(page.replace("</body>", LISTENER), encoding="utf-8")
    body = browse(path, width)
    assert_sound(body)
    assert json.loads(body["data-pictures"]) == [800, 800]
    assert json.loads(body["data-seconds"]) == [0.3] * (2 * 3 + 2)


def test_sounds_that_the_policy_or_the_browser_refuses_would_be_seen(tmp_path, fake, browse):
    path = write_report(fake.write_speech(tmp_path, steps=(50,), count=1))
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("; media-src data:", ""), encoding="utf-8")
    assert "policy: media-src" in browse(path)["data-error-text"]
    path.write_text(re.sub('(data:audio/wav;base64,)[^"]+', "\\1AAAA", page), encoding="utf-8")
    assert int(browse(path)["data-errors"]) > 0


def test_a_script_error_would_be_seen(tmp_path, fake, browse):
    path = write_report(fake.write_run(tmp_path, steps=20))
    path.write_text(path.read_text(encoding="utf-8").replace('"charts":[', '"charts":[{"id":"x"},'), encoding="utf-8")
    page = path.read_text(encoding="utf-8").replace('data-chart="learning-0"', 'data-chart="x"')
    path.write_text(page, encoding="utf-8")
    assert int(browse(path)["data-errors"]) > 0
