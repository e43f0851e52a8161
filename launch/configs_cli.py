"""`generative config`: what can be configured, and what a configuration comes to."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.run_cli import ConfigName, Overrides

app = typer.Typer(help="List, show and explain configurations.", rich_markup_mode=None, no_args_is_help=True)


@app.command()
def show(
    config: ConfigName,
    overrides: Overrides = None,
) -> None:
    """Print a configuration, complete and checked. With what it extends, the overrides, and all defaults."""
    from generative.config import to_yaml
    from launch.schema import load_run_config

    typer.echo(to_yaml(load_run_config(config, overrides or [])), nl=False)


@app.command()
def schema(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Only the keys of this section, say train.optimizer.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON schema instead.")] = False,
) -> None:
    """List all keys with type, default and meaning."""
    from evaluation.harness.suite import Suite, SuiteKeys
    from launch.cluster_schema import ClusterFile
    from launch.schema import KINDS

    if as_json:
        typer.echo(json.dumps({"anyOf": [kind.model_json_schema() for kind in KINDS]}, indent=1))
        return
    models = (*KINDS, ClusterFile, SuiteKeys[Suite])
    lines = list(dict.fromkeys(line for model in models for line in _lines(model, "")))
    found = [line for line in lines if not key or line[0] == key or line[0].startswith(f"{key}.")]
    if not found:
        from generative.config import known_keys
        from generative.errors import ConfigError, suggestion

        raise ConfigError(
            f"{key}: unknown key{suggestion(key, [known for model in models for known in known_keys(model)])}",
            "a key or section of the configuration",
            "correct the key, or leave it out to list all",
        )
    for name, kind, meaning in found:
        typer.echo(f"{name}  ({kind})" + (f"\n    {meaning}" if meaning else ""))


@app.command("list")
def names() -> None:
    """List the configurations that come with the program."""
    from generative.config import config_folder, known_names

    known = known_names()
    width = max(map(len, known), default=0)
    for name in known:
        typer.echo(f"{name:<{width}}  {purpose(config_folder() / f'{name}.yaml')}".rstrip())


def purpose(path: Path) -> str:
    """First sentence of the comment that a configuration begins with, its asides left out where it is long."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#") and line.strip("# "), lines)
    sentence = re.split(r"(?<!\bal)\.(?:\s|$)", " ".join(line.strip("# ") for line in comment))[0].rstrip(":")
    return _shortened(sentence, 100)


def _shortened(text: str, limit: int) -> str:
    """Text up to the last break between clauses (not within brackets) that leaves at most `limit` characters."""
    if len(text) <= limit:
        return text
    breaks = [match.start() for match in re.finditer(r"[;:] | \(", text)]
    fitting = [text[:end] for end in breaks if limit // 3 < end <= limit]
    whole = [part for part in fitting if part.count("(") == part.count(")")]
    return whole[-1] if whole else f"{text[: limit - 4].rpartition(' ')[0]} ..."


def _lines(model: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    """(key, type and default, meaning) of each key below a model."""
    from generative.config import models_in

    for name, info in model.model_fields.items():
        below = list(models_in(info.annotation))
        default = "required" if info.is_required() else "" if below else f"default {_default(info)}"
        kind = "section" if below else _type_name(info.annotation)
        yield f"{prefix}{name}", ", ".join(filter(None, (kind, default))), " ".join((info.description or "").split())
        for section in below:
            yield from _lines(section, f"{prefix}{name}.")


def _default(info: Any) -> str:
    return json.dumps(info.get_default(call_default_factory=True), default=str, ensure_ascii=False)


def _type_name(annotation: Any) -> str:
    from typing import Literal, get_args, get_origin

    if get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if isinstance(annotation, type) and not get_args(annotation):
        return "null" if annotation is type(None) else annotation.__name__
    parts = [_type_name(part) for part in get_args(annotation) if part is not Ellipsis]
    union = get_origin(annotation) not in (list, tuple, dict)
    return " | ".join(parts) if union else f"{get_origin(annotation).__name__}[{', '.join(parts)}]"
