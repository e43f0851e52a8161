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

from pydantic import BaseModel, ConfigDict, ValidationError

from generative.config_messages import UNKNOWN_KEY, explain, plain_path
from generative.config_text import KeyPath, parse_override, read_file, write_text
from generative.errors import ConfigError, suggestion

TOLD_AT_ONCE = 5
"""Mistakes that one error lists."""


class Config(BaseModel):
    """Base of all configuration sections: frozen, no unknown keys, a docstring under each field.

    Validators raise `config_messages.combination` for settings that do not go together.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


ConfigT = TypeVar("ConfigT", bound=Config)


COMMAND_LINE = "command line"
"""The file of what was typed."""


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
    renamed: dict[KeyPath, Origin] = field(default_factory=dict)
    """Where the `name` of a section was last changed, by the section's path."""

    def merge(self, values: Mapping[str, Any], file: str, lines: Mapping[KeyPath, int]) -> None:
        """Put one more layer on top: mappings are merged, everything else is replaced."""
        self.count += 1
        self._merge(self.values, values, (), file, lines)

    def _merge(self, into: dict[str, Any], new: Mapping[str, Any], path: KeyPath, file: str, lines: Any) -> None:
        for key, value in new.items():
            here = (*path, str(key))
            if key == "name" and into and into.get("name") != value:
                self.renamed[path] = Origin(self.count, file, lines.get(here, 0))
            self.origins[here] = Origin(self.count, file, lines.get(here, 0))
            if isinstance(value, Mapping):
                below = into.get(key)
                into[key] = below = below if isinstance(below, dict) else {}
                self._merge(below, value, here, file, lines)
            else:
                into[key] = value

    def put(self, path: Sequence[str], value: Any) -> None:
        """A layer of the command line: one key with its value."""
        nested = value
        for key in reversed(path):
            nested = {key: nested}
        self.merge(nested, COMMAND_LINE, {})

    def within(self, section: str) -> Layers:
        """The same keys as those of a section, which is what errors then call them by."""
        origins, renamed = (
            {(section, *path): origin for path, origin in told.items()} for told in (self.origins, self.renamed)
        )
        return Layers({section: self.values}, origins, self.count, renamed)

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


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` on `below`, mapping by mapping; neither is changed."""
    result = dict(below) | dict(above)
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            result[key] = merged(below[key], above[key])
    return result


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
        f"no configuration named {name!r}{suggestion(name, known_names())}",
        expected="a YAML file, or a name that `generative config list` prints",
        remedy="give a path that exists or one of the known names",
    )


def _stack(layers: Layers, path: Path, below: tuple[Path, ...]) -> None:
    """Merge a file on top of what it extends."""
    if path.resolve() in below:
        chain = " -> ".join(str(p) for p in (*below, path))
        raise ConfigError(
            f"{path}: extends itself: {chain}",
            expected="configurations that extend others without coming back to themselves",
            remedy="remove one `extends` from the circle",
        )
    values, lines = read_file(path)
    extends = values.pop("extends", None) or []
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"extends: {extends!r} is not valid ({path} line {lines[('extends',)]})",
            expected="the name of a configuration, or a list of names",
            remedy="correct extends",
        )
    for name in names:
        _stack(layers, find_config(name, beside=path.parent), (*below, path.resolve()))
    layers.merge(values, str(path), lines)


def _apply_override(layers: Layers, text: str) -> None:
    """One `a.b=c` (c in YAML syntax) or `~a.b` (delete) from the command line."""
    if text.startswith("~"):
        if not layers.remove(tuple(text[1:].split("."))):
            raise ConfigError(
                f"override {text!r}: there is no such key to delete",
                expected="a key that the configuration sets",
                remedy="leave the override out, or correct the key",
            )
        layers.count += 1
        return
    layers.put(*parse_override(text))


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
        unknown = [plain_path(layers.values, e["loc"]) for e in errors if e["type"] == UNKNOWN_KEY]
        stale = [path for path in unknown if _stale(layers, path)]
        if not stale:
            raise _all_told(layers, schema, errors)
        for path in stale:
            layers.remove(path)


def _all_told(layers: Layers, schema: type[Config], errors: Sequence[Any]) -> ConfigError:
    """One error for the first mistakes, so that several can be corrected at once."""

    def where(path: KeyPath) -> str:
        origin = layers.origin(path)
        return f" ({origin})" if origin else ""

    known = list(known_keys(schema))
    told = [explain(error, layers.values, where, known) for error in errors[:TOLD_AT_ONCE]]
    if len(errors) == 1:
        return told[0]
    more = [f"... and {len(errors) - TOLD_AT_ONCE} more"] if len(errors) > TOLD_AT_ONCE else []
    return ConfigError("\n".join([*map(str, told), *more]))


def load(name: str, overrides: Sequence[str], schema: Callable[[Mapping[str, Any]], type[ConfigT]]) -> ConfigT:
    """Load and check; `schema` picks the model by the merged values (by `method.name`)."""
    layers = load_layers(name, overrides)
    return validate(layers, schema(layers.values))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load` reads back to an equal one."""
    return write_text(config.model_dump(mode="json"))


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


def _stale(layers: Layers, path: KeyPath) -> bool:
    """Whether an unknown key of a file was set before a section around it was given another name (`data.name=files`).

    What was typed is never left over, but a mistake; and the name of the whole (`name=mine`) chooses nothing.
    """
    key = layers.origins.get(path)
    if key is None or key.file == COMMAND_LINE:
        return False
    renamed = [layers.renamed.get(path[:depth]) for depth in range(1, len(path))]
    return any(name is not None and key.layer < name.layer for name in renamed)
