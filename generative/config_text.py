"""YAML text to values: files, with the line of each key, and the values of `a.b=c` on the command line."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from generative.errors import ConfigError

KeyPath = tuple[str, ...]

MOST_NODES = 100_000
"""Keys and values of a file, aliases written out: a few lines of aliases of aliases can stand for any number."""


def read_file(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """The settings in a YAML file, and the line of each key (1-based).

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds no mapping.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        values, lines = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "a readable file", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8", "YAML in UTF-8", "convert the file") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply", "a few levels of sections", "correct its brackets") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, AssertionError) as error:
        line, problem = _yaml_problem(error)
        raise ConfigError(
            f"{path}{f' line {line}' if line else ''}: not readable as YAML: {problem}",
            expected="sections and settings in YAML syntax",
            remedy=f"correct {f'line {line} (or the lines before it)' if line else 'the syntax'}",
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: holds a {'list' if isinstance(values, list) else type(values).__name__}",
            expected="a mapping of sections to settings",
            remedy="write `key: value` lines",
        )
    return copy.deepcopy(values), lines


@lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """Values, and the line of each key. Kept, since a campaign reads the same few files for each of its cells."""
    from omegaconf import OmegaConf

    lines = _key_lines(text)
    return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}, lines


def _key_lines(text: str) -> dict[KeyPath, int]:
    """Line of each key in a YAML text, 1-based."""
    lines: dict[KeyPath, int] = {}

    def walk(node: yaml.Node | None, path: KeyPath) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, str(key.value))
                lines[here] = key.start_mark.line + 1
                walk(value, here)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if _expanded(root, {}) > MOST_NODES:
        raise ValueError(f"aliases (*name) that stand for more than {MOST_NODES:,} values, or for themselves")
    walk(root, ())
    return lines


def _expanded(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Number of nodes with all aliases written out; infinite where one stands for itself. `known`: by the node's id."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _yaml_problem(error: Exception) -> tuple[int | None, str]:
    """Line (1-based, where it is known) and what is wrong in it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return error.problem_mark.line + 1, " ".join(filter(None, (error.context, error.problem)))
    return None, str(error).partition("\n")[0]


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Key and value of `a.b=c`, c in YAML syntax.

    What is not YAML and does not begin like a list, a mapping or a quoted text is taken as the text that it is, so that
    `data.pattern=*.py` needs no quotes inside quotes.

    Raises:
        ConfigError: no `=`, no key, or a list, mapping or quoted text that is not finished.
    """
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    if not equals or not all(path):
        raise ConfigError(
            f"override {text!r} is not understood",
            expected="section.key=value, or ~section.key",
            remedy="write the key, `=` and the value without spaces between them",
        )
    value = value.strip()
    try:
        return path, yaml.safe_load(value) if value else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if value[0] not in "[{\"'":
            return path, value
        raise ConfigError(
            f"override {text!r}: the value is not readable as YAML: {_yaml_problem(error)[1]}",
            expected="a value in YAML syntax, such as 3, true, [1, 2] or {key: value}",
            remedy=f"close the brackets and quotes in the value of {key}, and quote it for the shell",
        ) from error


class _Dumper(yaml.SafeDumper):
    """Writes texts with unusual line breaks in double quotes: in others they would be read back as spaces."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    unusual = any(character in text for character in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if unusual else None)


_Dumper.add_representer(str, _represent_text)


def write_text(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their order, that is read back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
