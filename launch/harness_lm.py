"""The model `generative` of the lm-eval harness: masked diffusion and autoregressive, its work shared out over Ray.

Importing this module needs the package lm_eval and registers the model there, so that programs of one's own may say
`lm_eval.simple_evaluate("generative", "model=RUN,draws=128,workers=8", tasks=[...])`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import lm_eval.models  # noqa: F401  (so that the harness's own models stay known beside this one)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from evaluation.harness.jobs import Continue, Job, Question, Scored, Whole
from evaluation.harness.suite import SuiteConfig
from launch.ray_map import Progress
from launch.sections import LaunchConfig
from launch.text_model import Subject, answers


@register_model("generative")
class GenerativeLM(LM):  # type: ignore[misc]
    """Answers the harness.

    Args:
        model: run, checkpoint or exported folder; or all that is to be opened.
        tokenizer: as for `Subject`.
        workers: Ray workers; 1 answers in this process.
        suite: settings by task; None: those that follow for all tasks.
        launch: how workers are started, in place of `workers`.
        progress: told the questions that are answered, and all.
        begin, estimator, draws, replicates, guidance: as in a suite.
        ignored: what the harness passes to any model (batch_size, device).
    """

    def __init__(
        self,
        model: str | Subject,
        tokenizer: str = "",
        workers: int = 1,
        *,
        suite: SuiteConfig | None = None,
        launch: LaunchConfig | None = None,
        progress: Progress | None = None,
        begin: str = "bos",
        estimator: str = "exact_count",
        draws: int = 128,
        replicates: int = 8,
        guidance: float | None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        asked = {"begin": begin, "estimator": estimator, "draws": draws, "replicates": replicates, "guidance": guidance}
        self.suite = suite or SuiteConfig.model_validate({"tasks": [{"name": "any"}], **asked})
        self.subject = model if isinstance(model, Subject) else Subject(model, {}, tokenizer, "", self.suite.begin)
        self.workers = launch or LaunchConfig(workers=workers)
        self.progress = progress
        self.scored: dict[str, list[Scored]] = defaultdict(list)
        """Answers by task, with the noise of their estimates."""
        self.written: set[str] = set()
        """Tasks that text was written for."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding writes it) of each continuation.

        Continuations of one document are options of a question; the second is told where there is only one.
        """
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[_address(request, index)].append(index)
        questions = [
            Question(task, number, tuple(_pair(requests[i]) for i in members), self.suite.rules(task))
            for (task, number), members in groups.items()
        ]
        found: dict[int, tuple[float, bool]] = {}
        for question, members, scored in zip(questions, groups.values(), self._answers(questions), strict=True):
            self.scored[question.task].append(scored)
            found |= dict(zip(members, zip(scored.logs, scored.greedy, strict=True), strict=True))
        return [found[index] for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-likelihood of each whole text in nats (a bound where it is one)."""
        jobs = []
        for index, request in enumerate(requests):
            task, number = _address(request, index)
            jobs.append(Whole(task, number, str(request.args[0]), self.suite.rules(task)))
        return [-nats for nats in self._answers(jobs)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What each context goes on with; greedy, unless the task says do_sample."""
        jobs = []
        for index, request in enumerate(requests):
            task, number = _address(request, index)
            self.written.add(task)
            context, wanted = str(request.args[0]), dict(request.args[1])
            until = wanted.get("until") or []
            jobs.append(
                Continue(
                    task,
                    number,
                    context,
                    (until,) if isinstance(until, str) else tuple(map(str, until)),
                    int(wanted.get("max_gen_toks") or self.suite.new_tokens),
                    float(wanted.get("temperature", 1.0)) if wanted.get("do_sample") else 0.0,
                    self.suite.told_guidance(task),
                )
            )
        return self._answers(jobs)

    def _answers(self, jobs: Sequence[Job]) -> list[Any]:
        return answers(jobs, self.subject, self.workers, self.suite.guidance, self.progress)


def _address(request: Any, index: int) -> tuple[str, int]:
    """Task and number of the document that a request is about."""
    number = index if request.doc_id is None else int(request.doc_id)
    return str(request.task_name or ""), number


def _pair(request: Any) -> tuple[str, str]:
    context, continuation = request.args
    return str(context), str(continuation)
