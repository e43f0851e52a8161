"""Figures along a training: checkpoint after checkpoint is measured with each of its averages, and the best is kept.

The best is the one of the lowest Frechet distance. RUN/best holds it as a checkpoint of its own, with the average in
the place of the weights, and RUN/best.json tells which it is; RUN/evaluations/along.jsonl has all figures. All samples
are of the same noise, so that checkpoints differ by their weights alone; that the lowest of many is also the luckiest
of them stays true.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evaluation.figure_names import KNOWN_FIGURES
from generative.errors import CheckpointError
from generative.training.checkpoint import CheckpointStore, Entry
from generative.training.checkpoint.format import step_folder
from generative.training.checkpoint.rotation import complete_steps
from generative.training.hooks import Hook
from generative.training.networks import weight_names
from generative.training.runfolder import append_line, read_lines, write_json
from generative.training.trainer import Trainer
from launch.folder import read_json, record_event
from launch.image_evaluation import (
    STREAMS,
    Part,
    Subject,
    figures,
    reference_of,
    reference_scorer,
    sampler_of,
    scorer,
    subject_of,
)
from launch.opened import BEST, OpenRun, averages, open_run, read_config
from launch.schema import RunConfig

ALONG = "evaluations/along.jsonl"
RECORD = "best.json"
METRICS = ("fid", "improved")
"""What is measured each time."""


class Judge:
    """Measures the checkpoints of one run, each once.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.every = int(read_config(folder).evaluate.every_steps)
        self.gone: set[int] = set()
        """Steps whose checkpoints went before they could be measured."""
        self._reference: Part | None = None

    def due(self) -> list[int]:
        """Steps of complete checkpoints that are still to be measured, ascending."""
        done = {line.get("step") for line in read_lines(self.folder / ALONG)} | self.gone
        steps = complete_steps(self.folder / "checkpoints")
        return [step for step in steps if step % self.every == 0 and step > 0 and step not in done]

    def measure(self, step: int) -> None:
        """Figures of all averages at a step; rotation may take the checkpoint away meanwhile, which leaves them out."""
        path = self.folder / "checkpoints" / step_folder(step)
        try:
            run = open_run(path)
            found = {name: self._figures(run, name) for name in averages(run.method)}
            self._record(run, found)
        except CheckpointError:
            if path.exists():
                raise
            self.gone.add(step)
            record_event(self.folder, "evaluate", f"step {step}: its checkpoint went before it was measured")

    def _figures(self, run: OpenRun, average: str) -> dict[str, Any]:
        nets, _ = run.networks(average)
        with torch.no_grad():
            sample = sampler_of(run.method, nets, run.device, STREAMS, run.data)
            subject = _asked(subject_of(run.config, run.method, run.data, sample, run.device, run.folder))
            if self._reference is None:
                count = len(reference_of(subject.settings, run.data)[1])
                self._reference = reference_scorer(subject)(range(count))
            generated = scorer(subject)(range(subject.settings.samples))
            return figures(subject, generated, self._reference)

    def _record(self, run: OpenRun, found: Mapping[str, Mapping[str, Any]]) -> None:
        step, names = run.checkpoint.step, list(found)
        best = min(names, key=lambda name: float(found[name]["fid"]["value"]))
        value, before = float(found[best]["fid"]["value"]), read_json(self.folder / RECORD)
        better = not before or value < float(before["figures"]["fid"]["value"])
        if better:
            told = {"step": step, "model": worn(best), "average": best, "figures": found[best]}
            _keep(run, best, told)
            write_json(self.folder / RECORD, {"time": time.time(), **told})
        metrics = {key: {name: _short(found[name][key]) for name in names} for key in found[best]}
        line = {"version": 1, "step": step, "time": time.time(), "samples": run.config.evaluate.samples}
        (self.folder / ALONG).parent.mkdir(exist_ok=True)
        append_line(self.folder / ALONG, line | {"figures": metrics})
        which = "the best so far" if better else f"the best stays {before['figures']['fid']['value']:.3g}"
        title = KNOWN_FIGURES["fid"].label
        record_event(self.folder, "evaluate", f"step {step}: {title} {value:.3g} ({worn(best)}), {which}")


class LocalHook(Hook):
    """Measures checkpoints between steps, on rank 0, where there is no actor to do it (launch.backend=local)."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self._judge: Judge | None = None

    @staticmethod
    def wanted(config: RunConfig) -> bool:
        """Whether a run has no actor but wants figures along its training."""
        return config.launch.backend == "local" and getattr(config.evaluate, "every_steps", None) is not None

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        """This checkpoint as soon as it is whole."""
        if step % self.config.evaluate.every_steps == 0:
            trainer.patiently(lambda: self._measure(trainer))

    def _measure(self, trainer: Trainer) -> None:
        assert trainer.store is not None
        trainer.store.wait()
        if trainer.backend.rank == 0:
            self._judge = self._judge or Judge(self.folder)
            for step in self._judge.due():
                self._judge.measure(step)


def worn(average: str) -> str:
    """ "ema 0.999" or "trained", as figures are labelled everywhere."""
    return average if average == "trained" else f"ema {average}"


def _asked(subject: Subject) -> Subject:
    return replace(subject, settings=subject.settings.model_copy(update={"metrics": METRICS}))


def _short(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figure.get(key) for key in ("value", "stderr", "n")}


def _keep(run: OpenRun, average: str, told: Mapping[str, Any]) -> None:
    """RUN/best: the networks that have the average, wearing it."""
    entries: dict[str, Entry] = {}
    for name, spec in run.method.networks().items():
        if not spec.trainable or (not spec.ema and average != "trained"):
            continue
        rate = None if average == "trained" else average
        for ours, full in weight_names(run.checkpoint, name, rate).items():
            part = "buffer" if full.startswith(f"net/{name}/buffer/") else "param"
            entries[f"net/{name}/{part}/{ours}"] = Entry(run.checkpoint.tensor(full))
    meta = {"facts": run.checkpoint.meta.get("facts", {}), "step": run.checkpoint.step, "best": dict(told)}
    CheckpointStore(run.folder / BEST, keep_last=1).save(run.checkpoint.step, entries, meta, asynchronous=False)
