"""The reversal curse asked of a trained model: `generative evaluate RUN --suite reverse-curse`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.harness.suite import ReversalSuite
from evaluation.reversal import reversal_figures, reversal_jobs
from generative.data.config import ReversalTextConfig
from generative.data.reversal import TESTS, prepare_reversal, reversal_tests
from generative.errors import ConfigError
from launch.opened import read_config, run_folder_of
from launch.ray_map import Progress
from launch.sections import LaunchConfig
from launch.text_model import Subject, answers


def ask_reversal(
    subject: Subject, suite: ReversalSuite, launch: LaunchConfig, told: bool, progress: Progress | None
) -> dict[str, Any]:
    """Figures by what is asked, as `launch.suites.run_suite` gives them.

    Args:
        subject: the model.
        suite: how it is asked.
        launch: workers.
        told: whether guidance was asked for by hand, for which the model must have a mask token.
        progress: told the questions that are answered, and all.

    Raises:
        ConfigError: the model was not trained on such statements, and no questions are given.
    """
    folder = suite.path or _own_questions(subject)
    if suite.path is not None:
        folder = prepare_reversal(ReversalTextConfig(path=suite.path), key="suite.path")
    questions = {asked: pairs[: suite.limit] for asked, pairs in reversal_tests(folder).items()}
    model = subject.open()
    guidance = suite.guidance if model.masked else 0.0
    model.check_guidance(suite.guidance if told else None)
    length = suite.length or model.method.facts.sequence_length or model.longest
    jobs = reversal_jobs(model, questions, length, guidance)
    how = "greedy, left to right"
    if model.masked:
        how = f"most confident first in {suite.steps} steps, guidance {guidance:g}"
        wanted = {"method.sampling.name": "confidence", "method.sampling.steps": suite.steps}
        subject = replace(subject, changes={**wanted, **subject.changes})
    del model
    figures = reversal_figures(questions, answers(jobs, subject, launch, None, progress))
    return {
        "tasks": {
            name: {**figure.to_json(), "protocol": f"{figure.protocol}, {how}", "published": suite.published.get(name)}
            for name, figure in figures.items()
        }
    }


def _own_questions(subject: Subject) -> Path:
    data = None if subject.exported else read_config(run_folder_of(subject.path)).data
    if not isinstance(data, ReversalTextConfig):
        raise ConfigError(
            f"{subject.path} was not trained on statements about people",
            f"a run with data.name=reversal, or the questions: a folder with {', '.join(TESTS.values())}",
            "set suite.path=FOLDER, or train masked_diffusion/reversal",
        )
    return prepare_reversal(data)
