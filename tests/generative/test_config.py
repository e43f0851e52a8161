"""What users meet when they write configurations."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from generative import config as configuration
from generative.config import Config, find_config, known_names, load, load_layers, to_yaml, validate
from generative.errors import ConfigError


class Inner(Config):
    lr: float = Field(default=0.1, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)


class Red(Config):
    name: Literal["red"] = "red"
    shade: int = 1
    common: int = 0


class Layer(Config):
    opacity: float = 1.0


class Blue(Config):
    name: Literal["blue"] = "blue"
    layer: Layer = Layer()
    depth: float = 2.0
    common: int = 0


class Root(Config):
    steps: int = 1
    optimizer: Inner = Inner()
    colour: Annotated[Red | Blue, Field(discriminator="name")] = Red()
    tags: list[str] = []


def schema(values):
    return Root


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_layers_win_in_order(write):
    write("base.yaml", "steps: 2\noptimizer: {lr: 1e-4, betas: [0.5, 0.6]}\n")
    write("middle.yaml", "extends: base\nsteps: 3\n")
    write("other.yaml", "optimizer: {lr: 7}\n")
    write("top.yaml", "extends: [middle, other]\ntags: [a]\n")
    loaded = load("top", ["steps=9", "tags=[x, y]"], schema)
    assert loaded.steps == 9
    assert loaded.optimizer.lr == 7
    assert loaded.optimizer.betas == (0.5, 0.6)
    assert loaded.tags == ["x", "y"]


def test_joined_names_are_layers(write):
    write("a.yaml", "steps: 2\n")
    write("b.yaml", "optimizer: {lr: 3}\n")
    loaded = load("a+b.yaml", [], schema)
    assert (loaded.steps, loaded.optimizer.lr) == (2, 3)


def test_extends_is_found_beside_the_file(write):
    write("deep/base.yaml", "steps: 4\n")
    write("deep/top.yaml", "extends: base\n")
    write("base.yaml", "steps: 5\n")
    assert load("deep/top", [], schema).steps == 4


def test_circle_is_refused(write):
    write("a.yaml", "extends: b\n")
    write("b.yaml", "extends: a\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load("a", [], schema)


def test_unknown_key_names_file_line_and_nearest(write):
    write("mine.yaml", "steps: 1\n\noptimzer:\n  lr: 2\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert "optimzer: unknown key (mine.yaml line 3). Did you mean optimizer?" in str(caught.value)


def test_unknown_nested_key_on_the_command_line(write):
    write("mine.yaml", "steps: 1\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", ["optimizer.lrr=3"], schema)
    assert "optimizer.lrr: unknown key (command line). Did you mean optimizer.lr?" in str(caught.value)


def test_unknown_key_of_a_choice(write):
    write("mine.yaml", "colour:\n  name: blue\n  dept: 3\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert "colour.dept: unknown key (mine.yaml line 3). Did you mean colour.depth?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=fast", "steps: 'fast' is not valid (command line)"),
        ("optimizer.lr=-1", "optimizer.lr: -1 is not valid"),
        ("colour.name=blu", "colour.name: unknown name 'blu' (command line). Did you mean blue?"),
        ("colour.name=green", "expected: one of red, blue"),
        ("steps", "override 'steps' is not understood"),
        ("=3", "is not understood"),
        ("steps=[1", "override 'steps=[1'"),
        ("~nothing.here", "there is no such key to delete"),
    ],
)
def test_bad_values(write, override, expected):
    write("mine.yaml", "steps: 1\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [override], schema)
    assert expected in str(caught.value)


def test_several_mistakes_are_told_at_once(write):
    write("mine.yaml", "steps: x\ntgs: []\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert "steps: 'x'" in str(caught.value)
    assert "tgs: unknown key" in str(caught.value)


def test_changing_the_choice_drops_keys_of_the_old_one_only(write):
    write("mine.yaml", "colour: {name: red, shade: 5, common: 8}\n")
    loaded = load("mine.yaml", ["colour.name=blue", "colour.depth=1"], schema)
    assert loaded.colour == Blue(depth=1, common=8)
    with pytest.raises(ConfigError, match=r"colour.shade: unknown key"):
        load("mine.yaml", ["colour.name=blue", "colour.shade=1"], schema)


def test_nested_keys_of_the_old_choice_are_dropped_too(write):
    write("mine.yaml", "colour: {name: blue, layer: {opacity: 0.5}}\n")
    assert load("mine.yaml", ["colour.name=red"], schema).colour == Red()


def test_delete_brings_the_default_back(write):
    write("mine.yaml", "optimizer: {lr: 5}\n")
    assert load("mine.yaml", ["~optimizer.lr"], schema).optimizer.lr == 0.1


def test_missing_configuration_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean masked_diffusion/quickstart"):
        find_config("masked_diffusion/quickstar")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "a: 1\na: 2\n"])
def test_broken_yaml(write, text):
    write("mine.yaml", text)
    with pytest.raises(ConfigError, match=r"mine.yaml"):
        load("mine.yaml", [], schema)


numbers = st.floats(1e-6, 1e6)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(-5, 5), numbers, st.tuples(numbers, numbers), st.lists(st.text(max_size=5), max_size=3), st.booleans()
)
def test_resolved_yaml_reads_back_equal(steps, lr, betas, tags, blue):
    one = Root(steps=steps, optimizer=Inner(lr=lr, betas=betas), tags=tags, colour=Blue() if blue else Red(shade=3))
    layers = configuration.Layers()
    layers.merge(yaml.safe_load(to_yaml(one)), "resolved", {})
    assert validate(layers, Root) == one


def test_every_shipped_configuration_is_valid():
    from launch.schema import load_run_config

    names = [name for name in known_names() if name.split("/")[0] in ("masked_diffusion", "autoregressive")]
    assert "masked_diffusion/quickstart" in names
    for name in names:
        overrides = ["data.path=."] if "shakespeare" in name else []
        assert load_run_config(name, overrides).name == name


def test_origins_of_deleted_and_nested_keys():
    layers = load_layers("masked_diffusion/quickstart", ["train.steps=3"])
    assert str(layers.origin(("train", "steps"))) == "command line"
    assert "quickstart.yaml line" in str(layers.origin(("train", "seed")))
