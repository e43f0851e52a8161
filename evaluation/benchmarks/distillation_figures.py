"""What the trainings of `distillations` come to: tables of teacher and students, and how the two compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.benchmarks.distillations import Outcomes, Scores, scored_on
from evaluation.benchmarks.figure import Figure, figure, median_estimate
from evaluation.estimate import Estimate, mean_estimate

METRICS = {
    "fd": "Frechet distance",
    "precision": "improved precision (k=3)",
    "recall": "improved recall (k=3)",
    "accuracy": "share of samples that the classifier takes for the class that was asked for",
}


def table(
    outcomes: Outcomes, samplers: Mapping[int, str], divergences: Sequence[str], seeds: Sequence[int], note: str
) -> dict[str, Figure]:
    """METRIC_teacher (most calls), METRIC_teacher_CALLS and METRIC_DIVERGENCE: means over seeds.

    Args:
        outcomes: of teacher and students.
        samplers: of the teacher in words, by calls.
        divergences: of the students.
        seeds: of each.
        note: on all figures.
    """
    most, found = max(samplers), dict[str, Figure]()
    for calls, sampler in samplers.items():
        who = "teacher" if calls == most else f"teacher_{calls}"
        of = [outcomes[None, seed][calls] for seed in seeds]
        found |= _row(who, of, f"teacher, {sampler}, network calls: {calls}", seeds, note)
    for name in divergences:
        of = [outcomes[name, seed][1] for seed in seeds]
        found |= _row(name, of, f"student by {name}, network calls: 1", seeds, note)
    return found


def comparison(outcomes: Outcomes, most: int, chosen: str, seeds: Sequence[int], note: str) -> dict[str, Figure]:
    """The student's distance over its teacher's, its recall, and what js and kl gain in recall over reverse KL.

    Args:
        outcomes: of teacher and students.
        most: calls of the teacher that is compared with.
        chosen: the student's divergence.
        seeds: of each.
        note: on all figures.
    """
    pairs = [(outcomes[chosen, seed][1], outcomes[None, seed][most]) for seed in seeds]
    ratios = [student["fd"].value / teacher["fd"].value for student, teacher in pairs]
    recalls = [student["recall"].value for student, _ in pairs]
    note = f"{note}; seeds {', '.join(map(str, seeds))}"
    ratio = f"Frechet distance of the one-step student by {chosen} over its teacher's at {most} calls, median; {note}"
    recall = f"{METRICS['recall']} of the one-step student by {chosen}, median; {note}"
    found = {
        "fd_ratio_student_teacher": figure(median_estimate(ratios, ratio), values=ratios),
        "recall_student": figure(median_estimate(recalls, recall), values=recalls),
    }
    for name in ("js", "kl"):
        if (name, seeds[0]) not in outcomes or ("rkl", seeds[0]) not in outcomes:
            continue
        gains = [outcomes[name, s][1]["recall"].value - outcomes["rkl", s][1]["recall"].value for s in seeds]
        told = f"recall of the student by {name} less that by rkl, of the same teacher and noise, mean; {note}"
        found[f"recall_gained_{name}"] = figure(mean_estimate(gains, "", told), values=gains)
    return found


def over_seeds(several: Sequence[Estimate], seeds: Sequence[int]) -> Estimate:
    """The mean over seeds with its error; of a single seed, the estimate with its own."""
    if len(several) == 1:
        return replace(several[0], protocol=f"seed {seeds[0]}; {several[0].protocol}")
    protocol = f"mean over seeds {', '.join(map(str, seeds))}, each {scored_on(several[0])}"
    return mean_estimate([one.value for one in several], several[0].unit, protocol)


def _row(who: str, several: Sequence[Scores], told: str, seeds: Sequence[int], note: str) -> dict[str, Figure]:
    return {
        f"{metric}_{who}": figure(
            over_seeds([one[metric] for one in several], seeds),
            None,
            f"{name}; {told}; {note}",
            [one[metric].value for one in several],
        )
        for metric, name in METRICS.items()
    }
