"""Which files train, validate and are reported on: by patterns, or whole speakers picked by a fixed shuffle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from generative.data.order import permute
from generative.errors import DataError

PARTS = ("train", "validation", "test")
SHARES = {"validation": 0.1, "test": 0.2}
"""Parts of the speakers (or files) that are held out where no pattern says which."""


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path below a folder fits one of some glob patterns, as a whole or by its last part."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rsplit("/", 1)[-1], pattern) for pattern in patterns)


def split_names(
    names: Sequence[str], groups: Sequence[str], patterns: Mapping[str, Sequence[str]], where: str, key: str
) -> dict[str, list[int]]:
    """Numbers of the files of each part, in order; none is in two, and no part is empty.

    Args:
        names: of the files.
        groups: of each file its speaker (or itself): where a part has no patterns, whole groups are picked.
        patterns: of the parts "validation" and "test"; empty: a share of the groups that no pattern takes.
        where: what is split, for messages.
        key: setting of the patterns without the part ("speech": data.test_speech).

    Raises:
        DataError: a pattern that fits nothing, or too few groups.
    """
    left = list(range(len(names)))
    found: dict[str, list[int]] = {}
    for part in ("test", "validation"):
        if given := patterns[part]:
            found[part] = [n for n in left if matches(names[n], given)]
            if not found[part]:
                raise DataError(
                    f"{where}: no file fits data.{part}_{key}={list(given)}",
                    expected=f"some of its {len(names)} files (the first is {names[0]})",
                    remedy=f"correct data.{part}_{key}",
                )
            left = [n for n in left if n not in set(found[part])]
    for part in ("test", "validation"):
        if part not in found:
            found[part] = _some_groups(left, groups, part)
            left = [n for n in left if n not in set(found[part])]
    found["train"] = left
    empty = [part for part in PARTS if not found[part]]
    if empty:
        raise DataError(
            f"{where}: nothing is left for {' and '.join(empty)} ({len(names)} files, {len(set(groups))} groups)",
            expected="files for training, validation and test",
            remedy=f"give more files, or say with data.validation_{key} and data.test_{key} which are held out",
        )
    return {part: found[part] for part in PARTS}


def _some_groups(left: Sequence[int], groups: Sequence[str], part: str) -> list[int]:
    """A share of the groups, at least one, picked by a fixed shuffle; all files of these."""
    names = sorted({groups[n] for n in left})
    if not names:
        return []
    order = permute(np.arange(len(names), dtype=np.int64), len(names), seed=0, epoch=0)
    chosen = {names[n] for n in order[: max(1, round(SHARES[part] * len(names)))]}
    return [n for n in left if groups[n] in chosen]


def held_out(names: Sequence[str], fraction: float, where: str) -> tuple[list[int], list[int]]:
    """Training and validation numbers of files, the latter a fraction picked by a fixed shuffle, at least one.

    Raises:
        DataError: nothing would be left to train on.
    """
    count = max(1, round(fraction * len(names)))
    if count >= len(names):
        raise DataError(
            f"{where}: of {len(names)} pairs {count} would be held out",
            expected="at least one to train on besides",
            remedy="give more files, or a folder of validation files",
        )
    chosen = set(permute(np.arange(count, dtype=np.int64), len(names), seed=0, epoch=1).tolist())
    numbers = range(len(names))
    return [n for n in numbers if n not in chosen], sorted(chosen)
