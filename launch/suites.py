"""`generative evaluate MODEL --suite NAME`: what a suite asks of a model, and what it comes to in a table."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.estimate import Bound, Estimate
from evaluation.harness.suite import ReversalSuite, SuiteConfig, TextsSuite, load_suite
from generative.data.packages import needed
from generative.errors import DataError, GenerativeError, suggestion
from generative.hub_names import HUB, repository
from launch.asked import as_changes, asked_launch, split_overrides
from launch.importing import fetch_folder
from launch.ray_map import Progress
from launch.reversal import ask_reversal
from launch.sections import LaunchConfig
from launch.text_model import Subject
from launch.texts_suite import measure_texts

BOOTSTRAP = 1000
"""Resamples for the standard errors of figures that are no means (perplexity)."""

ALONE = "DISABLE_MULTIPROC"
"""Tells the harness to resample where it is."""

TOLD = 300
"""Characters that are told of an error of the harness."""

PER_TEXT = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
"""Figures of the harness that fall as the likelihood grows: a lower bound of this makes an upper one of them."""

Results = dict[str, Any]


def run_suite(
    path: str | Path,
    name: str,
    *,
    tasks: Path | None = None,
    tokenizer: str = "",
    limit: int | None = None,
    workers: int | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Results:
    """Ask a model all questions of a suite.

    Args:
        path: run, checkpoint, exported or imported folder, or hub:OWNER/NAME.
        name: of the suite, or its file.
        tasks: folder of further tasks (YAML files of the harness), which win over those that come with it.
        tokenizer: see `Subject`.
        limit: only the first so many questions of each task.
        workers: share the questions out over so many Ray workers.
        overrides: `a.b=c` of the sections suite, method.sampling and launch.
        progress: told the questions that are answered, and all.

    Raises:
        DataError: the harness is not installed; there is no such task; its data are not here and cannot be fetched.
        ConfigError, CheckpointError: of the model or the settings.
    """
    own = [text.removeprefix("suite.") for text in overrides if text.startswith("suite.")]
    rest = [text for text in overrides if not text.startswith("suite.")]
    launch_overrides, others = split_overrides(rest, ("suite", "method.sampling"))
    suite = load_suite(name, [*own, *([] if limit is None else [f"limit={limit}"])])
    on_hub = str(path).startswith(HUB)
    folder = fetch_folder(repository(str(path)), None) if on_hub else Path(path).expanduser()
    subject = Subject(str(folder), as_changes(others), tokenizer)
    launch = asked_launch(subject.launch(), launch_overrides, workers) or LaunchConfig()
    if isinstance(suite, ReversalSuite):
        told = any(text.startswith("guidance=") for text in own)
        found = ask_reversal(replace(subject, begin="none"), suite, launch, told, progress)
    elif isinstance(suite, TextsSuite):
        found = measure_texts(subject, suite, asked_launch(subject.launch(), launch_overrides, workers), progress)
    else:
        found = _ask_harness(replace(subject, begin=suite.begin), suite, launch, tasks, progress)
    about = {"time": time.time(), **subject.about(), "suite": name, "published_by": suite.published_by}
    return {**about, **found}


def _ask_harness(
    subject: Subject, suite: SuiteConfig, launch: LaunchConfig, folder: Path | None, progress: Progress | None
) -> Results:
    harness = needed("lm_eval", package="lm-eval", extra="lm-eval", by="--suite", instead="`generative evaluate` alone")
    model = subject.open()  # what is wrong with it is told before tasks are fetched
    model.check_guidance(suite.guidance)
    masked = model.masked
    del model
    from launch.harness_lm import GenerativeLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    lm = GenerativeLM(subject, suite=suite, launch=launch, progress=progress)
    objects, manager = load_tasks([task.name for task in suite.tasks], folder)
    with contextlib.redirect_stdout(io.StringIO()), _in_this_process():  # the harness prints what it does
        found = harness.simple_evaluate(
            model=lm,
            tasks=objects,
            task_manager=manager,
            num_fewshot=suite.examples,
            limit=suite.limit,
            log_samples=False,
            bootstrap_iters=BOOTSTRAP,
        )
    return {
        "harness": f"lm-eval {harness.__version__}",
        "tasks": {task.name: _task(task.name, suite, found, lm, masked) for task in suite.tasks},
    }


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """The harness would fork this process once for each core, and give all resamples to one of them."""
    before = os.environ.get(ALONE)
    os.environ[ALONE] = "1"
    try:
        yield
    finally:
        os.environ.pop(ALONE)
        if before is not None:
            os.environ[ALONE] = before


def load_tasks(names: Sequence[str], folder: Path | None) -> tuple[list[Any], Any]:
    """The harness's tasks of these names with their data, and what manages them.

    Raises:
        DataError: no such task, or its data cannot be had.
    """
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise DataError(f"--tasks {folder}: no such folder", "a folder with task files (*.yaml)", "correct the path")
    manager = None if folder is None else TaskManager(include_path=str(folder), include_defaults=False)
    if manager is None or not set(names) <= set(manager.all_tasks):
        # Only now, for looking through the thousands of tasks that come with the harness takes a while.
        manager = TaskManager(include_path=None if folder is None else str(folder))
    return [one for name in names for one in _load(name, manager)], manager


def _load(name: str, manager: Any) -> list[Any]:
    if name not in manager.all_tasks:
        raise DataError(
            f"the harness has no task {name!r}{suggestion(name, manager.all_tasks)}",
            "a task that comes with lm-eval, or one of your own in the folder of --tasks",
            "correct the name in the suite, or give --tasks FOLDER with a file that has `task: NAME`",
        )
    try:
        loaded = manager.load([name])
    except GenerativeError:
        raise
    except Exception as error:  # network, hub, files, YAML, jinja: many kinds, and the remedy is the same
        reason = " ".join(str(error).split())[:TOLD]
        raise DataError(
            f"the task {name!r} cannot be loaded: {type(error).__name__}: {reason}",
            "its data on this machine (in the cache of Hugging Face), or a network to fetch them",
            "fetch them where there is a network and copy the cache (HF_HOME), or give --tasks FOLDER with a task of "
            "this name whose data are local files (dataset_path: json, dataset_kwargs: {data_files: ...})",
        ) from error
    group = (loaded.get("groups") or {}).get(name)
    return list(loaded["tasks"].values()) if group is None else [group]


def _task(name: str, suite: SuiteConfig, found: Mapping[str, Any], lm: Any, masked: bool) -> Results:
    """One task: its chief figure with error, all figures, how it was scored."""
    asked = next(task for task in suite.tasks if task.name == name)
    values = dict(found["results"].get(name) or {})
    metrics = {key.split(",")[0]: value for key, value in values.items() if isinstance(value, int | float)}
    if asked.metric not in metrics:
        raise DataError(
            f"the task {name!r} has no figure {asked.metric!r}{suggestion(asked.metric, metrics)}",
            f"one of {', '.join(key for key in metrics if not key.endswith('_stderr'))}",
            "correct `metric` in the suite",
        )
    count = int(dict(found.get("n-samples", {}).get(name) or {}).get("effective") or len(lm.scored[name]))
    scored, error = lm.scored[name], metrics.get(f"{asked.metric}_stderr")
    bound: Bound | None = (
        "upper" if masked and asked.metric in PER_TEXT and suite.rules(name).estimator != "chain_rule" else None
    )
    protocol = f"{count:,} questions, {_how(name, asked.metric, suite, lm, masked)}"
    return {
        "metric": asked.metric,
        **Estimate(float(metrics[asked.metric]), error, count, "", protocol, bound).to_json(),
        "published": asked.published,
        "all": metrics,
        "close_calls": sum(each.close for each in scored) / len(scored) if scored else None,
    }


def _how(name: str, metric: str, suite: SuiteConfig, lm: Any, masked: bool) -> str:
    """How a task was answered, for its protocol."""
    rules, told = suite.rules(name), suite.told_guidance(name)
    if name in lm.written:
        guided = "that of method.sampling" if told is None else f"{told:g}"
        return f"written text, guidance {guided}" if masked else "written text"
    if not masked:
        return "exact, left to right"
    if metric == "acc" and all(len(each.logs) == 1 for each in lm.scored[name]):  # as LAMBADA
        return f"written greedily, the most confident token of each call, guidance {rules.guidance:g}"
    draws = "" if rules.estimator == "chain_rule" else f", {rules.draws} draws"
    return f"{rules.estimator}{draws}, guidance {rules.guidance:g}"


def suite_table(results: Results) -> str:
    """The tasks as a table, and what is to be known of it."""
    rows: list[tuple[str, ...]] = [("task", results.get("column", "accuracy"), "stderr", "published")]
    for name, task in results["tasks"].items():
        label = name if task.get("metric", "acc") == "acc" else f"{name} ({task['metric']})"
        rows.append((label, *(_number(task[key]) for key in ("value", "stderr", "published"))))
    width = max(len(row[0]) for row in rows)
    lines = [f"  {row[0]:<{width}}  {row[1]:<10}  {row[2]:<6}  {row[3]}".rstrip() for row in rows]
    notes = [f"  published: {results['published_by']}"] if results["published_by"] else []
    close = {name: task["close_calls"] for name, task in results["tasks"].items() if task.get("close_calls")}
    if close:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in close.items())
        notes.append(f"  questions that the estimates' noise may have decided: {shares}; more suite.draws help")
    return "\n".join([*lines, *notes])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
