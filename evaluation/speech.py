"""Evaluation of speech enhancement: SI-SDR, SI-SIR, SI-SAR, STOI, ESTOI and PESQ.

    scores = score_files(items, rate=16000, workers=4)
    print(summary(scores).figures["pesq_wb"])

Every file gives a `FileScore`; those of any number of workers are joined by `merge`, so files may be scored anywhere
and in any order. A metric that has no value for a file (silence, too short, PESQ finds no utterance) is listed with its
reason and not averaged in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from numpy.typing import ArrayLike

from evaluation.estimate import Estimate, mean_estimate
from evaluation.process_pool import in_pool
from evaluation.speech_scores import METRICS, available_metrics, check_speech_metrics, default_metrics, score, utterance
from generative.errors import DataError

__all__ = [
    "METRICS",
    "FileScore",
    "SpeechFigures",
    "SpeechItem",
    "available_metrics",
    "check_speech_metrics",
    "default_metrics",
    "merge",
    "paired_gain",
    "score_file",
    "score_files",
    "summary",
]


@dataclass(frozen=True)
class SpeechItem:
    """A file by its name, and its signals [T] at one rate; without `noisy` there is no SI-SIR and no SI-SAR."""

    name: str
    clean: ArrayLike
    estimate: ArrayLike
    noisy: ArrayLike | None = None


@dataclass(frozen=True)
class FileScore:
    """Figures of one file.

    Args:
        name: of the file.
        rate: in Hz.
        values: by metric.
        failed: why a metric has no value, by metric.
    """

    name: str
    rate: int
    values: Mapping[str, float]
    failed: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FileScore:
        """Read what `to_json` wrote. Raises ValueError where it is something else."""
        try:
            values = {str(k): float(v) for k, v in data["values"].items()}
            failed = {str(k): str(v) for k, v in data.get("failed", {}).items()}
            return FileScore(str(data["name"]), int(data["rate"]), values, failed)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a score of a file: {data!r}") from error


@dataclass(frozen=True)
class SpeechFigures:
    """Means over files, and the files that a metric has no value for: "name: metric: reason"."""

    figures: Mapping[str, Estimate]
    failed: Sequence[str]


def score_file(item: SpeechItem, rate: int, metrics: Sequence[str]) -> FileScore:
    """Figures of one file; never raises for what is wrong with its sound."""
    try:
        heard = utterance(item.clean, item.estimate, item.noisy, rate)
    except DataError as error:
        return FileScore(item.name, rate, {}, dict.fromkeys(metrics, error.problem))
    return FileScore(item.name, rate, *score(heard, metrics))


def score_files(
    items: Iterable[SpeechItem],
    rate: int,
    metrics: Sequence[str] | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda files: None,
) -> list[FileScore]:
    """Figures of files, in the order of their names.

    Args:
        items: the files; taken one by one, so that not all have to be in memory.
        rate: of all signals, in Hz.
        metrics: names in `METRICS`; None takes `default_metrics(rate)`.
        workers: processes that score (1: this one).
        progress: told how many files are done.

    Raises:
        ConfigError, DataError: metrics that cannot be had, before the first file; two files of one name.
    """
    chosen = tuple(default_metrics(rate) if metrics is None else metrics)
    check_speech_metrics(chosen, rate)
    found: list[FileScore] = []
    results = in_pool(partial(score_file, rate=rate, metrics=chosen), items, workers)
    for item, result in results:
        killed = dict.fromkeys(chosen, "the process that scored it was killed")
        found.append(result if result is not None else FileScore(item.name, rate, {}, killed))
        progress(len(found))
    return merge([found])


def merge(parts: Iterable[Iterable[FileScore]]) -> list[FileScore]:
    """Scores of several workers, in the order of their names.

    Raises:
        DataError: a file that was scored twice, or files at different rates.
    """
    found = sorted((one for part in parts for one in part), key=lambda one: one.name)
    names = [one.name for one in found]
    twice = sorted({a for a, b in pairwise(names) if a == b})
    if twice:
        raise DataError(
            f"{len(twice)} files are scored twice: {', '.join(twice[:5])}",
            expected="each file once",
            remedy="give each file a name of its own, and each worker other files",
        )
    if len({one.rate for one in found}) > 1:
        raise DataError(
            f"files at {' and '.join(str(r) for r in sorted({one.rate for one in found}))} Hz",
            expected="one sample rate",
            remedy="evaluate them one after the other",
        )
    return found


def summary(scores: Sequence[FileScore], protocol: str = "") -> SpeechFigures:
    """Mean over files with its standard error, for each metric that some file has a value of.

    Args:
        scores: of all files.
        protocol: what was scored; what is known of the metric is added.
    """
    failed = [f"{one.name}: {name}: {why}" for one in scores for name, why in one.failed.items()]
    names = [name for name in METRICS if any(name in one.values for one in scores)]
    return SpeechFigures({name: _mean(name, scores, protocol) for name in names}, failed)


def _mean(name: str, scores: Sequence[FileScore], protocol: str) -> Estimate:
    metric, values = METRICS[name], [one.values[name] for one in scores if name in one.values]
    failed = sum(name in one.failed for one in scores)
    count = f"mean over {len(values)} files at {scores[0].rate} Hz"
    without = f"{failed} without a value left out" if failed else ""
    package = f"{metric.package} {version(metric.package)}" if metric.package else ""
    return mean_estimate(values, metric.unit, "; ".join(filter(None, [protocol, count, without, package, metric.note])))


def paired_gain(better: Sequence[FileScore], than: Sequence[FileScore], metric: str) -> Estimate:
    """Mean of the differences between two systems, file by file: its error is free of how hard the files are.

    Raises:
        DataError: no file has a value in both.
    """
    before = {one.name: one.values for one in than}
    pairs = [
        one.values[metric] - before[one.name][metric]
        for one in better
        if metric in one.values and metric in before.get(one.name, {})
    ]
    if not pairs:
        raise DataError(
            f"no file has a value of {metric} for both systems",
            expected="the same files, scored for both",
            remedy="score both on one set of files",
        )
    return mean_estimate(pairs, METRICS[metric].unit, f"mean difference over {len(pairs)} files")
