"""What a person is told about a wrong configuration: pydantic's findings in plain words, in three parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from generative.errors import ConfigError, suggestion

KeyPath = tuple[str, ...]

UNKNOWN_KEY = "extra_forbidden"
COMBINATION = "combination"

_WORDS = {
    "a whole number": ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "a text": ("string_type", "string_sub_type", "string_unicode"),
    "a path": ("path_type",),
    "a list of values": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "a section with settings": ("dict_type", "model_type", "model_attributes_type", "mapping_type", "dataclass_type"),
}
_TYPES = {kind: words for words, kinds in _WORDS.items() for kind in kinds}
_BOUNDS = {
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "a list of at least {min_length} values",
    "too_long": "a list of at most {max_length} values",
}


def combination(problem: str, expected: str, remedy: str) -> ValueError:
    """For validators of a section to raise: settings that do not go together, told in the three parts of an error."""
    parts = {"problem": problem, "expected": expected, "remedy": remedy}
    return PydanticCustomError(COMBINATION, "{problem}; expected: {expected}; to fix: {remedy}", parts)


def plain_path(values: Mapping[str, Any], loc: Sequence[str | int]) -> KeyPath:
    """pydantic's location in `values` without the tags that it adds for choices."""
    path: list[str] = []
    section: Any = values
    for part in loc:
        # A tag comes last where a validator of the section as a whole has found fault.
        if (
            isinstance(section, dict)
            and part not in section
            and (part == section.get("name") or (part == "name" and part != loc[-1]))
        ):
            continue
        path.append(str(part))
        if isinstance(section, dict):
            section = section.get(part)
        elif isinstance(section, list) and isinstance(part, int) and part < len(section):
            section = section[part]
    return tuple(path)


def explain(
    error: Any, values: Mapping[str, Any], where: Callable[[KeyPath], str], known: Iterable[str]
) -> ConfigError:
    """One of pydantic's findings as an error for a person.

    Args:
        error: an item of `ValidationError.errors()`.
        values: the configuration that was checked.
        where: " (file line N)" of a key, or "".
        known: all dotted keys that there are.
    """
    path, kind = plain_path(values, error["loc"]), error["type"]
    key, at = ".".join(path), where(path)
    if kind in (UNKNOWN_KEY, "invalid_key"):
        return _unknown_key(path, values, where, known)
    if kind == "missing":
        return _missing(path, error, at)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_choice(f"{key}.name", at, error)
    if kind in (COMBINATION, "value_error", "assertion_error"):
        return _not_together(key, at, error)
    names = _names(error)
    guess = suggestion(error["input"], names) if names and isinstance(error["input"], str) else ""
    return ConfigError(f"{key}: {_shown(error['input'])} is not valid{at}{guess}", _expected(error), f"correct {key}")


def _unknown_key(
    path: KeyPath, values: Mapping[str, Any], where: Callable[[KeyPath], str], known: Iterable[str]
) -> ConfigError:
    """An unknown section with a single key in it is told by that key, which is what was meant to be set."""
    section, depth = _at(values, path), len(path)
    while isinstance(section, dict) and len(section) == 1:
        ((name, section),) = section.items()
        path = (*path, str(name))
    key, parent = ".".join(path), ".".join(path[: depth - 1])
    listed = f"generative config schema {parent}".rstrip()
    return ConfigError(
        f"{key}: unknown key{where(path)}{suggestion(key, (name for name in known if name != key))}",
        f"a key of {f'the section {parent}' if parent else 'the configuration'} (`{listed}` lists them)",
        f"correct or remove {key}",
    )


def _at(values: Any, path: KeyPath) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _missing(path: KeyPath, error: Any, at: str) -> ConfigError:
    key = ".".join(path)
    if isinstance(error["loc"][-1], int):
        key, place = ".".join(path[:-1]), int(path[-1]) + 1
        problem, expected = f"{key}: value {place} of the list is missing{at}", f"a list of at least {place} values"
        return ConfigError(problem, expected, f"correct {key}")
    remedy = f"set {key} in the configuration or give {key}=VALUE"
    return ConfigError(f"{key}: missing{at}", "a value, since there is no default", remedy)


def _wrong_choice(key: str, at: str, error: Any) -> ConfigError:
    """A section whose `name` is missing or unknown."""
    context = error.get("ctx", {})
    if error["type"] == "union_tag_not_found":
        return ConfigError(f"{key}: missing{at}", "a `name` that picks the choice", f"set {key}")
    known = [name.strip(" '") for name in context["expected_tags"].split(",")]
    name, guess = _shown(error["input"]["name"]), suggestion(context["tag"], known)
    return ConfigError(f"{key}: unknown name {name}{at}{guess}", _one_of(known), f"correct {key}")


def _not_together(key: str, at: str, error: Any) -> ConfigError:
    """What a validator of a section says. Of a plain ValueError the sentences after the first are the remedy."""
    prefix = f"{key}: " if key else ""
    if error["type"] == COMBINATION:
        parts = error["ctx"]
        return ConfigError(f"{prefix}{parts['problem']}{at}", parts["expected"], parts["remedy"])
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    problem, _, remedy = text.partition(". ")
    return ConfigError(
        f"{prefix}{problem.removesuffix('.')}{at}",
        remedy=remedy[:1].lower() + remedy[1:] if remedy else f"correct {key or 'the configuration'}",
    )


def _shown(value: Any) -> str:
    """A value as it is written in YAML and on the command line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _expected(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if names := _names(error):
        return _one_of(names)
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    return _TYPES.get(kind) or _plain(error["msg"])


def _names(error: Any) -> list[str]:
    """The names that a key may have."""
    return re.findall(r"'([^']*)'", error["ctx"]["expected"]) if error["type"] in ("literal_error", "enum") else []


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}" if len(names) > 1 else names[0]


def _plain(message: str) -> str:
    """Rare findings, in pydantic's words without its way of speaking."""
    message = message.removeprefix("Input should be ").replace("Input", "it").replace("a valid ", "a ")
    return message[:1].lower() + message[1:]
