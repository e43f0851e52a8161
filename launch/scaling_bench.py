"""Scaling laws, measured: published tables fitted again, and a campaign of this machine that is killed once.

The campaign is configs/campaign/mdm_vs_ar_tiny, run by `generative campaign run` on Ray. Its command is killed with
SIGKILL when a third of its jobs are done, and given again. Laws are fitted to all budgets but the largest, whose best
loss, and whose runs, are then predicted.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.benchmarks import scaling_tables
from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.estimate import Estimate, from_draws
from evaluation.scaling.best_loss import BestLoss
from evaluation.scaling.family import FamilyLaws, gap_of_families
from evaluation.scaling.holdout import coverage, mean_width, worst_error
from generative.errors import GenerativeError
from generative.training.runfolder import write_json
from launch.campaign.ledger import DONE, totals
from launch.campaign.opened import Campaign, open_campaign
from launch.campaign.report import write_report
from launch.campaign.results import laws
from launch.folder import read_json

NAME = "campaign/mdm_vs_ar_tiny"
HOURS = 1.5
QUICK = (
    "families.mdm.budgets=[2e9, 4e9, 8e9]",
    "families.ar.budgets=[2e9, 4e9, 8e9]",
    "families.mdm.set=[evaluate.draws=4]",
    "sizes=[{layers: 1, heads: 1, width: 16}, {layers: 2, heads: 1, width: 16}, {layers: 2, heads: 2, width: 32},"
    " {layers: 2, heads: 3, width: 48}]",
    "families.mdm.near=null",
    "families.ar.near=null",
    "extra=[]",
    "min_steps=2",
    "tolerance=0.2",
    "wsd.warmup_steps=1",
)


def run(quick: bool) -> dict[str, Figure]:
    """Figures of the tables (where they are at hand), then of the campaign."""
    figures = scaling_tables.run(quick)
    with workplace("scaling") as folder:
        overrides = [*(QUICK if quick else ()), f"dir={folder / ('quick' if quick else 'whole')}"]
        campaign = open_campaign(NAME, overrides)
        seconds, killed = _clocked(campaign.folder / "bench.json", lambda: killed_once(overrides, campaign))
        path, lines = write_report(campaign, 200 if quick else 1000)
        for label, text in lines:
            say(f"{label}: {text}")
        say(f"report: {path} (kept where GENERATIVE_BENCH says)")
        return figures | measured(campaign, seconds, killed)


def _clocked(file: Path, run: Callable[[], tuple[float, bool]]) -> tuple[float, bool]:
    """What `run` gives, or gave when the campaign was run: a campaign that is kept is only fitted again."""
    if not file.is_file():
        seconds, killed = run()
        write_json(file, {"seconds": seconds, "killed": killed})
    told = read_json(file)
    return float(told["seconds"]), bool(told["killed"])


def killed_once(overrides: Sequence[str], campaign: Campaign) -> tuple[float, bool]:
    """Wall-clock of both commands together, and whether the first was killed before it was through."""
    began = time.monotonic()
    third = len(campaign.jobs) // 3
    process = _command(overrides, campaign.folder)
    killed = False
    while process.poll() is None:
        time.sleep(1.0)
        if sum(entry.state == DONE for entry in campaign.entries().values()) >= third:
            os.kill(process.pid, signal.SIGKILL)
            killed = True
            say(f"killed after {time.monotonic() - began:.0f} s, with {third} of {len(campaign.jobs)} jobs done")
            break
    process.wait()
    again = _command(overrides, campaign.folder)
    if again.wait() != 0:
        log = campaign.folder / "bench.log"
        raise GenerativeError(
            f"the campaign ended with exit code {again.returncode} after it was killed and given again",
            "exit code 0",
            f"look at {log}: {log.read_text(errors='replace')[-500:]}",
        )
    return time.monotonic() - began, killed


def _command(overrides: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "launch.cli", "campaign", "run", NAME, *overrides]
    with (folder / "bench.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measured(campaign: Campaign, seconds: float, killed: bool) -> dict[str, Figure]:
    """All figures of a campaign that is done."""
    entries = campaign.entries()
    families = laws(campaign, entries)
    done = [one for one in entries.values() if one.state == DONE]
    work = sum(float(one.result.get("seconds") or 0.0) for one in done)
    spent, wasted = totals(entries.values())

    def plain(value: float, unit: str, note: str, goal: str | None = None, n: int = 1) -> Figure:
        return figure(Estimate(value, None, n, unit, note), goal)

    figures = {
        "campaign_hours": plain(seconds / 3600, "h", f"{len(done)} jobs, both commands", f"<= {HOURS}"),
        "jobs_done": plain(
            len(done) / len(entries), "", "share of all jobs, after kill -9 and a second command", ">= 1"
        ),
        "interrupted": plain(float(killed), "", "1: the first command was killed with SIGKILL before its end", ">= 1"),
        "wasted_flops": plain(wasted / max(spent, 1.0), "", "FLOPs of lost steps / FLOPs spent"),
        "cell_seconds": plain(work, "s", "sum over cells, trunks not among them"),
    }
    for one in families:
        figures |= _of_family(one)
    errors = [entry for name, entry in figures.items() if name.endswith("_prediction_error")]
    if errors:
        worst = max(errors, key=lambda entry: float(entry["value"]))
        figures["prediction_error"] = {**worst, "goal": "<= 0.03"}
    return figures | _gap(families) | _plateau(campaign, families)


def _of_family(one: FamilyLaws) -> dict[str, Figure]:
    """How well the largest budget is predicted, its best loss and each of its runs; and each budget from all others."""
    figures: dict[str, Figure] = {}
    good = sum(valley.bracketed for valley in one.valleys)
    note = "budgets with a bracketed minimum, of all"
    figures[f"{one.name}_bracketed"] = figure(Estimate(good, None, len(one.valleys), "", note))
    for what, why in one.problems:
        say(f"{one.name}: no {what}: {why}")
    if one.best is not None:
        figures |= _best(one.name, one.best)
    for what, note, runs in (
        ("ahead", "runs of the largest budget, surface fitted to all smaller ones", one.ahead),
        ("backtest", "runs of budgets above a tenth of the largest, surface fitted to those below", one.back),
        ("left_out", "runs of each budget, surface fitted to all others", one.held_out),
    ):
        if runs:
            figures[f"{one.name}_{what}_error"] = figure(worst_error(runs), None, note)
            figures[f"{one.name}_{what}_width"] = figure(mean_width(runs), None, note)
            figures[f"{one.name}_{what}_coverage"] = figure(coverage(runs), None, note)
    if one.surface is not None and one.draws is not None:
        a = one.draws.interval(float(one.surface.surface.a), one.draws.surface.a)
        figures[f"{one.name}_exponent"] = figure(a, None, "N_opt ~ C^a by the surface")
    if one.isoflop is not None:
        line, draws = one.isoflop.N_opt, one.isoflop.draws[0].slope
        note = f"95% {one.isoflop.protocol}"
        told = from_draws(line.slope, draws, len(one.isoflop.bracketed), "", note)
        figures[f"{one.name}_exponent_minima"] = figure(told, None, "N_opt ~ C^a through the minima")
    return figures


def _best(name: str, best: BestLoss) -> dict[str, Figure]:
    """The best loss of the largest budget: measured, predicted, error, and the interval's width and whether it held."""
    tried = ", ".join(f"{law} {error:+.1%}" for law, error in best.tried.items())
    note = f"best loss of the largest budget by the {best.by}, which was chosen on the budget before it ({tried})"

    def plain(value: float, unit: str = "") -> Figure:
        return figure(Estimate(value, None, 1, unit, note))

    return {
        f"{name}_best_loss": figure(Estimate(best.measured, None, 1, "nats/token", "of the largest budget, measured")),
        f"{name}_best_loss_predicted": figure(best.predicted, None, note),
        f"{name}_prediction_error": plain(abs(best.error)),
        f"{name}_interval_width": plain(best.width, "nats/token"),
        f"{name}_interval_covers": plain(float(best.covered)),
    }


def _gap(families: Sequence[FamilyLaws]) -> dict[str, Figure]:
    try:
        _, _, gap = gap_of_families(families[0], families[1])
    except GenerativeError as error:
        say(f"no compute gap: {error.problem}")
        return {}
    bound = "a LOWER BOUND; " if gap.factor.bound == "lower" else ""
    return {"compute_gap": figure(gap.interval or gap.factor, None, f"{bound}{families[0].name} / {families[1].name}")}


def _plateau(campaign: Campaign, families: Sequence[FamilyLaws]) -> dict[str, Figure]:
    """How far the best masked diffusion model of the smallest budget is below the unigram entropy, nats a token."""
    points = families[0].points
    if points is None:
        return {}
    best = float(points.loss[points.budget == points.budget.min()].min())
    bits = unigram_bits(campaign)
    note = "unigram entropy less the best loss of the smallest budget"
    return {"mdm_below_unigram": figure(Estimate(bits * math.log(2) - best, None, 1, "nats/token", note), ">= 0.1")}


def unigram_bits(campaign: Campaign) -> float:
    """Bits a byte of the unigram table on the windows that cells are measured on."""
    from evaluation.ngram import evaluate_ngrams
    from generative.data.text import open_text

    run = campaign.grid.cells[0].run
    data = open_text(run.data)
    found = evaluate_ngrams(
        data.train,  # type: ignore[arg-type]
        data.validation,
        run.evaluate.windows,
        vocab_size=data.tokenizer.vocab_size,
        tokens_per_window=run.data.sequence_length,
        bytes_per_token=data.bytes_per_token,
        context=0,
    )
    return found["unigram"].bits_per_byte.value
