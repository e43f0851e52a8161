"""Suites of the lm-eval harness over local task files; nothing is fetched."""

from __future__ import annotations

import json
import math
import sys

import pytest

from evaluation.harness.jobs import Question, Rules
from evaluation.harness.scoring import scored
from evaluation.harness.suite import load_suite
from generative.config import to_yaml
from generative.errors import ConfigError, DataError
from launch import runs, suites, text_model
from launch.cli import main
from launch.schema import load_run_config
from launch.text_model import Subject
from launch.texts_suite import measure_texts
from launch.worker import run_worker
from tests.end_to_end.runs import CONFIG
from tests.support.actors import actors_here
from tests.support.text_runs import finished

WORDS = ["alpha", "beta", "gamma", "delta"]
CHOICES = [
    {"question": f"alpha {a}", "choices": [b, "be", "gamma de"], "answer": n % 3}
    for n, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS[:2])
]

QUESTIONS = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
CHOICE = (
    f"{QUESTIONS}task: made_choices"
    + """
output_type: multiple_choice
doc_to_target: answer
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
)
LAST_WORD = (
    f"{QUESTIONS}task: made_last_words"
    + """
output_type: loglikelihood
doc_to_target: "{{{{' ' + choices[0][0]}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
"""
)
WRITING = (
    f"{QUESTIONS}task: made_writing"
    + """
output_type: generate_until
doc_to_target: "{{{{choices[0][0]}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
)
SUITE = """
draws: 8
replicates: 2
published_by: nobody
tasks:
  - {name: made_choices, estimator: monte_carlo, guidance: 0.5, published: 0.25}
  - {name: made_last_words}
"""


@pytest.fixture(scope="module", params=["masked_diffusion", "autoregressive"])
def trained(texts, tmp_path_factory, request):
    return finished(
        texts,
        tmp_path_factory.mktemp("run") / "run",
        f"method.name={request.param}",
        "evaluate.at_end=false",
        "sample.at_end=false",
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of tasks with their questions beside them, and a suite of both."""
    folder = tmp_path_factory.mktemp("tasks")
    questions = folder / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, CHOICES)))
    for name, text in (("choices", CHOICE), ("words", LAST_WORD), ("writing", WRITING)):
        (folder / f"{name}.yaml").write_text(text.format(file=questions, cache=folder / "cache"))
    suite = tmp_path_factory.mktemp("suite") / "made.yaml"
    suite.write_text(SUITE)
    return folder, suite


def table_of(shown):
    """Without lines of progress, which a slow machine prints."""
    return "\n".join(line for line in shown.splitlines() if not line.startswith("evaluate"))


def harness_model():
    from launch import harness_lm

    return harness_lm


@pytest.fixture
def harness(monkeypatch):
    found = pytest.importorskip("lm_eval")
    # It asks pip and compilers about the machine after each suite, for seconds; nothing of that is used.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    return found


def test_without_the_harness_it_is_said_what_to_install(trained, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(DataError, match=r"needs the package lm-eval(.|\n)*pip install 'generative\[lm-eval\]'"):
        suites.run_suite(trained, str(files[1]), tasks=files[0])


def test_a_suite_of_local_tasks(trained, files, harness, capsys, tmp_path):
    folder, suite = files
    out = tmp_path / "found.json"
    asked = [str(trained), "--suite", str(suite), "--tasks", str(folder), "--json", str(out)]
    assert main(["evaluate", *asked]) == 0
    shown = table_of(capsys.readouterr().out)
    found = json.loads(out.read_text())
    assert shown.splitlines()[0].split() == ["task", "accuracy", "stderr", "published"]
    assert "published: nobody" in shown
    choices, words = found["tasks"]["made_choices"], found["tasks"]["made_last_words"]
    assert choices["n"] == words["n"] == len(CHOICES)
    assert choices["published"] == 0.25

    # What the harness makes of it is what the answers say.
    model = Subject(str(trained)).open()
    rules = Rules("monte_carlo", 8, 2, 0.5)
    right = 0
    for number, question in enumerate(CHOICES):
        pairs = tuple((question["question"], f" {choice}") for choice in question["choices"])
        logs = scored(model, Question("made_choices", number, pairs, rules)).logs
        right += max(range(3), key=lambda i: logs[i]) == question["answer"]
    share = right / len(CHOICES)
    assert choices["value"] == pytest.approx(share)
    assert choices["stderr"] == pytest.approx((share * (1 - share) / (len(CHOICES) - 1)) ** 0.5)
    assert words["all"]["perplexity"] > 1
    assert words["protocol"].endswith(("each call, guidance 0", "exact, left to right"))  # counted from what it writes
    assert f"made_choices     {share:.3f}" in shown

    # Fewer questions, other settings, workers.
    less = suites.run_suite(trained, str(suite), tasks=folder, limit=3, overrides=["suite.draws=4"])
    assert less["tasks"]["made_choices"]["n"] == 3


def test_the_protocol_says_what_was_done(trained, files, harness, tmp_path):
    suite = tmp_path / "own.yaml"
    tasks = [
        "{name: made_choices, estimator: chain_rule, guidance: GUIDANCE}",
        "{name: made_last_words, metric: perplexity}",
        "{name: made_writing, metric: exact_match}",
    ]
    masked = "autoregressive" not in (trained / "config.yaml").read_text()
    listed = ", ".join(tasks).replace("GUIDANCE", "0.5" if masked else "null")
    suite.write_text(f"draws: 4\nreplicates: 2\ntasks: [{listed}]\n")
    found = suites.run_suite(trained, str(suite), tasks=files[0], limit=2)["tasks"]
    assert [each["protocol"].removeprefix("2 questions, ") for each in found.values()] == (
        [
            "chain_rule, guidance 0.5",
            "exact_count, 4 draws, guidance 0",
            "written text, guidance that of method.sampling",
        ]
        if masked
        else ["exact, left to right", "exact, left to right", "written text"]
    )
    assert [each["bound"] for each in found.values()] == [None, "upper" if masked else None, None]


def test_workers_give_the_same(trained, files, harness, monkeypatch):
    folder, suite = files
    alone = suites.run_suite(trained, str(suite), tasks=folder)
    actors = actors_here(monkeypatch, text_model)
    told = []
    spread = suites.run_suite(
        trained, str(suite), tasks=folder, overrides=["launch.workers=3"], progress=lambda *counts: told.append(counts)
    )
    assert (len(actors.items), actors.workers) == (3, [3])
    assert told[-1] == (16, 16)
    for name, task in alone["tasks"].items():
        assert spread["tasks"][name]["value"] == task["value"]


def test_tasks_that_are_not_there(trained, files, harness, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    folder, _ = files
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with pytest.raises(DataError, match=r"no task 'made_choice'. Did you mean made_choices\?"):
        suites._load("made_choice", manager)
    broken = tmp_path / "broken.yaml"
    broken.write_text(CHOICE.format(file=tmp_path / "none.jsonl", cache=tmp_path / "cache"))
    with pytest.raises(DataError, match=r"'made_choices' cannot be loaded(.|\n)*HF_HOME(.|\n)*--tasks FOLDER"):
        suites.load_tasks(["made_choices"], tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        suites.load_tasks(["made_choices"], tmp_path / "none")


def test_figures_that_a_task_has_not(trained, files, harness, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("draws: 2\nreplicates: 2\ntasks: [{name: made_choices, metric: accc}]\n")
    with pytest.raises(DataError, match=r"has no figure 'accc'. Did you mean acc\?"):
        suites.run_suite(trained, str(suite), tasks=files[0], limit=2)


def test_guidance_needs_a_mask_token(trained, files, harness):
    folder, suite = files
    if "autoregressive" not in (trained / "config.yaml").read_text():
        pytest.skip("has one")
    with pytest.raises(ConfigError, match="no mask token"):
        suites.run_suite(trained, str(suite), tasks=folder, overrides=["suite.guidance=0.5"])


def test_the_harness_knows_the_model_by_its_name(trained, harness):
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    kind = harness_model().GenerativeLM
    assert get_model("generative") is kind
    lm = kind.create_from_arg_string(f"model={trained},draws=4,replicates=2")

    def requests(kind, *arguments):
        return [Instance(kind, {}, each, 0, ("made", number, 1)) for number, each in enumerate(arguments)]

    pairs = requests("loglikelihood", ("alpha", " beta"), ("beta", " a"))
    one, two = lm.loglikelihood(pairs)
    assert lm.loglikelihood(pairs[1:]) == [two]
    assert one[0] < 0
    rolled = lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("alpha beta" * 9,), ("",)))
    assert rolled[0] < -10
    assert rolled[1] == 0.0
    asked = {"until": ["\n"], "max_gen_toks": 5}
    written = lm.generate_until(requests("generate_until", ("alpha ", asked), ("alpha ", asked)))
    assert written[0] == written[1]  # greedy
    assert len(written[0].encode()) <= 15


def test_options_of_suites_alone(trained, capsys):
    assert main(["evaluate", str(trained), "--limit", "3"]) == 2
    assert "--limit without --suite" in capsys.readouterr().err
    assert main(["evaluate", str(trained), "--suite", "paper-zero-shot", "--draws", "3"]) == 2
    assert "suite.draws=N" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["masked_diffusion", "autoregressive"])
def test_the_reversal_curse_is_asked(name, tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["method.network.layers=1", "method.network.width=32", "method.network.ff_width=32", "train.steps=2"]
    data = ["data.people=2", "data.phrasings=2", f"data.cache={tmp_path / 'cache'}", "train.batch_size=4"]
    quiet = ["evaluate.at_end=false", "sample.at_end=false", "launch.backend=local", f"run.dir={folder}"]
    assert main(["data", "prepare", f"{name}/reversal", *data]) == 0
    assert "statements about 6 made people" in capsys.readouterr().out
    assert main(["train", f"{name}/reversal", *small, *data, *quiet]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--suite", "reverse-curse"]) == 0
    shown = table_of(capsys.readouterr().out).splitlines()
    assert [line.split()[0] for line in shown[1:7]] == [
        "description_to_name",
        "description_to_name_reversed",
        "name_to_description",
        "name_to_description_bleu",
        "name_to_description_reversed",
        "name_to_description_reversed_bleu",
    ]
    assert shown[2].split()[-1] == "0.920"
    told = main(["evaluate", str(folder), "suite.guidance=0.5", "--suite", "reverse-curse"])
    assert told == (2 if name == "autoregressive" else 0)
    if name == "autoregressive":
        assert "which has no mask token" in capsys.readouterr().err


def test_other_models_are_not_asked_about_people(trained):
    with pytest.raises(ConfigError, match=r"was not trained on statements(.|\n)*suite.path=FOLDER"):
        suites.run_suite(trained, "reverse-curse")


def test_questions_that_are_not_there_are_told_by_the_key_that_names_them(trained, tmp_path):
    with pytest.raises(DataError, match=r"has no all_prompts_train(.|\n)*correct suite\.path"):
        suites.run_suite(trained, "reverse-curse", overrides=[f"suite.path={tmp_path}"])


def test_perplexity_on_later_text(tmp_path):
    """The suite measures what `generative evaluate` does on each text."""
    folder, cache = tmp_path / "run", f"data.cache={tmp_path / 'cache'}"
    made = ["data.name=drifting", "data.documents=20", "data.tokenizer.name=bytes", "data.sequence_length=32", cache]
    config = load_run_config(str(CONFIG), [*made, f"run.dir={folder}", "train.steps=2", "launch.backend=local"])
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(config))
    run_worker(config, folder, rank=0, world=1, attempt=1)
    asked = ["suite.windows=6", "suite.draws=4", "suite.texts.later.documents=20", "suite.texts.latest.documents=20"]
    found = suites.run_suite(folder, "temporal-shift-made", overrides=asked)
    tasks = found["tasks"]
    assert list(tasks) == ["own", "later", "latest"]
    alone = runs.evaluate_run(folder, windows=6, draws=4, overrides=["evaluate.only_likelihood=true"])
    nats = alone["figures"]["elbo_nats_per_token"]
    assert tasks["own"]["nats_per_token"]["value"] == pytest.approx(nats["value"])
    assert tasks["own"]["value"] == pytest.approx(math.exp(nats["value"]))
    assert tasks["own"]["stderr"] == pytest.approx(math.exp(nats["value"]) * nats["stderr"])
    assert tasks["own"]["bound"] == "upper"
    assert tasks["own"]["ratio"] == 1.0
    assert tasks["latest"]["value"] != tasks["later"]["value"] != tasks["own"]["value"]
    assert suites.suite_table(found).splitlines()[0].split()[1] == "perplexity"


def test_texts_that_cannot_be_measured_are_told_before_any_is(trained, monkeypatch):
    monkeypatch.setattr("launch.texts_suite._measured", lambda *given: pytest.fail("measured"))
    with pytest.raises(ConfigError, match="periods: unknown key"):
        suites.run_suite(trained, "temporal-shift-made", overrides=["suite.texts.latest.periods=2"])
    learned = ["suite.texts.latest.tokenizer.name=bpe"]
    with pytest.raises(ConfigError, match=r"bpe, which is made of the text(.|\n)*tokenizer\.name=bytes"):
        suites.run_suite(trained, "temporal-shift-made", overrides=learned)


def test_models_of_something_else_have_no_texts(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(load_run_config("mee_gan/quickstart", [f"run.dir={tmp_path}"])))
    with pytest.raises(ConfigError, match="a model of mee_gan, which knows no text"):
        measure_texts(Subject(str(tmp_path)), load_suite("temporal-shift-made"), None, None)


def test_a_model_on_the_hub_is_fetched_first(trained, monkeypatch):
    fetched = {"me/mine": trained}
    monkeypatch.setattr(suites, "fetch_folder", lambda name, revision: fetched[name])
    with pytest.raises(ConfigError, match="was not trained on statements"):
        suites.run_suite("hub:me/mine", "reverse-curse")
