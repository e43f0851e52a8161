"""Typed configuration: YAML files that extend one another, then `a.b=c` overrides, checked by pydantic models.

A configuration is named by a path or by its name in `configs/` (which the wheel carries), several joined by "+":
`masked_diffusion/paper+sizes/170m`. Later layers win. An unknown key is an error that names the file, the line and the
nearest known key. Where a later layer changes a section's `name` (say data.name from builtin to files), the keys of the
earlier layers that the new choice does not know are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from generative.errors import ConfigError, nearest

KeyPath = tuple[str, ...]


class Config(BaseModel):
    """Base of all configuration sections: frozen, no unknown keys, a docstring under each field."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class Origin:
    """Where a key was set: which layer (later ones win), which file, which line (0 for the command line)."""

    layer: int
    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file} line {self.line}" if self.line else self.file


@dataclass
class Layers:
    """Merged but unchecked configuration, with the origin of each key."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    count: int = 0

    def merge(self, values: Mapping[str, Any], file: str, lines: Mapping[KeyPath, int]) -> None:
        """Put one more layer on top: mappings are merged, everything else is replaced."""
        self.count += 1
        self._merge(self.values, values, (), file, lines)

    def _merge(self, into: dict[str, Any], new: Mapping[str, Any], path: KeyPath, file: str, lines: Any) -> None:
        for key, value in new.items():
            here = (*path, str(key))
            self.origins[here] = Origin(self.count, file, lines.get(here, 0))
            if isinstance(value, Mapping):
                below = into.get(key)
                into[key] = below = below if isinstance(below, dict) else {}
                self._merge(below, value, here, file, lines)
            else:
                into[key] = value

    def remove(self, path: KeyPath) -> bool:
        """Delete a key; whether it was there."""
        section: Any = self.values
        for key in path[:-1]:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        return isinstance(section, dict) and section.pop(path[-1], self) is not self

    def origin(self, path: KeyPath) -> Origin | None:
        """Origin of a key, or of the nearest section around it."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return None


def config_folder() -> Path:
    """The folder of named configurations: inside the package (wheel) or beside it (clone)."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def known_names() -> list[str]:
    """All names of configurations that come with the distribution."""
    folder = config_folder()
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def find_config(name: str, beside: Path | None = None) -> Path:
    """The file that a name or path stands for; `beside`: a folder that is searched first.

    Raises:
        ConfigError: there is no such file; the message has the nearest name.
    """
    folders = [beside] if beside else []
    for folder in [*folders, Path(), config_folder()]:
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate.is_file():
                return candidate
    raise ConfigError(
        f"no configuration named {name!r}.{nearest(name, known_names())}",
        expected="a YAML file, or a name that `generative config list` prints",
        remedy="give a path that exists or one of the known names",
    )


def _key_lines(text: str) -> dict[KeyPath, int]:
    """Line of each key in a YAML text, 1-based."""
    lines: dict[KeyPath, int] = {}

    def walk(node: yaml.Node | None, path: KeyPath) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, str(key.value))
                lines[here] = key.start_mark.line + 1
                walk(value, here)

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines


def _parse_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = path.read_text(encoding="utf-8")
        lines = _key_lines(text)
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}", remedy="correct the YAML syntax") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}", expected="a mapping of sections to settings")
    return values, lines  # type: ignore[return-value]


def _stack(layers: Layers, path: Path, below: tuple[Path, ...]) -> None:
    """Merge a file on top of what it extends."""
    if path.resolve() in below:
        chain = " -> ".join(str(p) for p in (*below, path))
        raise ConfigError(f"{path}: extends itself: {chain}", remedy="remove one `extends` from the circle")
    values, lines = _parse_yaml(path)
    extends = values.pop("extends", [])
    for name in [extends] if isinstance(extends, str) else extends:
        _stack(layers, find_config(name, beside=path.parent), (*below, path.resolve()))
    layers.merge(values, str(path), lines)


def _apply_override(layers: Layers, text: str) -> None:
    """One `a.b=c` (c in YAML syntax) or `~a.b` (delete) from the command line."""
    if text.startswith("~"):
        if not layers.remove(tuple(text[1:].split("."))):
            raise ConfigError(f"override {text!r}: there is no such key to delete", expected="a key that is set")
        layers.count += 1
        return
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {text!r} is not understood", expected="section.key=value, or ~section.key")
    try:
        parsed = yaml.safe_load(value) if value.strip() else None
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: {error}", expected="a value in YAML syntax") from error
    nested: Any = parsed
    for part in reversed(key.split(".")):
        nested = {part: nested}
    layers.merge(nested, "command line", {})


def load_layers(name: str, overrides: Sequence[str] = ()) -> Layers:
    """Read a configuration (or several joined by "+"), what it extends, and the overrides; unchecked."""
    layers = Layers()
    for part in name.split("+"):
        _stack(layers, find_config(part), ())
    for override in overrides:
        _apply_override(layers, override)
    return layers


def validate(layers: Layers, schema: type[ConfigT]) -> ConfigT:
    """Check merged layers against a model.

    Raises:
        ConfigError: naming every wrong key with its value, file and line, what was expected, and the nearest key.
    """
    while True:
        try:
            return schema.model_validate(layers.values)
        except ValidationError as error:
            errors = error.errors()
        stale = [
            path for path in (_plain_path(layers, e["loc"]) for e in errors if _is_unknown(e)) if _stale(layers, path)
        ]
        if not stale:
            raise ConfigError("\n".join(_explain(layers, schema, e) for e in errors[:5]))
        for path in stale:
            layers.remove(path)


def load(name: str, overrides: Sequence[str], schema: Callable[[Mapping[str, Any]], type[ConfigT]]) -> ConfigT:
    """Load and check; `schema` picks the model by the merged values (by `method.name`)."""
    layers = load_layers(name, overrides)
    return validate(layers, schema(layers.values))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a model, those of each choice included."""
    for model in models_in(schema):
        for name, info in model.model_fields.items():
            yield f"{prefix}{name}"
            yield from known_keys(info.annotation, f"{prefix}{name}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type annotation, those of each choice included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _is_unknown(error: Any) -> bool:
    return bool(error["type"] == "extra_forbidden")


def _plain_path(layers: Layers, loc: Sequence[str | int]) -> KeyPath:
    """pydantic's location without the tags that it adds for choices."""
    path: list[str] = []
    section: Any = layers.values
    for part in loc:
        if (
            isinstance(section, dict)
            and part not in section
            and part in (section.get("name"), "name")
            and part != loc[-1]
        ):
            continue
        path.append(str(part))
        if isinstance(section, dict):
            section = section.get(part)
        elif isinstance(section, list) and isinstance(part, int) and part < len(section):
            section = section[part]
    return tuple(path)


def _stale(layers: Layers, path: KeyPath) -> bool:
    """Whether an unknown key was set before the `name` of a section around it was last changed."""
    key = layers.origins.get(path)
    names = [layers.origins.get((*path[:depth], "name")) for depth in range(len(path))]
    return key is not None and any(name is not None and key.layer < name.layer for name in names)


def _explain(layers: Layers, schema: type[Config], error: Any) -> str:
    path = _plain_path(layers, error["loc"])
    key, origin = ".".join(path), layers.origin(path)
    where = f" ({origin})" if origin else ""
    if _is_unknown(error):
        return f"{key}: unknown key{where}.{nearest(key, (k for k in known_keys(schema) if k != key))}"
    if error["type"] == "missing":
        return f"{key}: missing{where}\nto fix: set {key} in the configuration or give {key}=VALUE"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _explain_choice(key, where, error)
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] in ("value_error", "assertion_error"):
        return f"{key or 'configuration'}: {message}{where}"
    return f"{key}: {error['input']!r} is not valid{where}\nexpected: {message}\nto fix: correct {key}"


def _explain_choice(key: str, where: str, error: Any) -> str:
    """A section whose `name` is missing or unknown."""
    context = error.get("ctx", {})
    known = [name.strip(" '") for name in context.get("expected_tags", "").split(",") if name]
    expected = f"expected: one of {', '.join(known)}" if known else "expected: a `name` that picks the choice"
    if error["type"] == "union_tag_not_found":
        return f"{key}.name: missing{where}\n{expected}\nto fix: set {key}.name"
    tag = context["tag"]
    return f"{key}.name: unknown name {tag!r}{where}.{nearest(tag, known)}\n{expected}\nto fix: correct {key}.name"
