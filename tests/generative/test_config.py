"""What users meet when they write configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from generative import config as configuration
from generative.config import Config, find_config, known_names, load, load_layers, to_yaml, validate
from generative.config_messages import combination
from generative.errors import ConfigError


class Inner(Config):
    lr: float = Field(default=0.1, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    share: float = Field(default=0.5, le=1)
    mode: Literal["slow", "fast"] = "slow"
    nesterov: bool = False


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
    folder: Path = Path()


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
    assert str(caught.value).splitlines() == [
        "optimzer.lr: unknown key (mine.yaml line 4). Did you mean optimizer.lr?",
        "expected: a key of the configuration (`generative config schema` lists them)",
        "to fix: correct or remove optimzer.lr",
    ]


def test_unknown_section_of_several_keys_is_named_itself(write):
    write("mine.yaml", "steps: 1\noptimzer:\n  lr: 2\n  betas: [1, 1]\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert str(caught.value).startswith("optimzer: unknown key (mine.yaml line 2). Did you mean optimizer?\n")


def test_unknown_key_that_is_near_nothing(write):
    write("mine.yaml", "7: 1\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", ["zzzzzzzz=1"], schema)
    assert "7: unknown key (mine.yaml line 1)\n" in str(caught.value)
    assert "zzzzzzzz: unknown key (command line)\n" in str(caught.value)


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
        ("steps=fast", 'steps: "fast" is not valid (command line)'),
        ("optimizer.lr=-1", "optimizer.lr: -1 is not valid"),
        ("colour.name=blu", 'colour.name: unknown name "blu" (command line). Did you mean blue?'),
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


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=1.5", "a whole number"),
        ("steps=null", "a whole number"),
        ("steps=[1]", "a whole number"),
        ("optimizer=7", "a section with settings"),
        ("optimizer=null", "a section with settings"),
        ("colour=red", "a section with settings"),
        ("optimizer.lr=much", "a number"),
        ("optimizer.lr=-1", "a number greater than 0"),
        ("optimizer.share=2", "a number of at most 1"),
        ("optimizer.share=-.inf", "a finite number"),
        ("optimizer.lr=.nan", "a finite number"),
        ("optimizer.betas=0.5", "a list of values"),
        ("optimizer.betas=[1, 2, 3]", "a list of at most 2 values"),
        ("optimizer.betas=[1]", "a list of at least 2 values"),
        ("optimizer.mode=slwo", "one of slow, fast"),
        ("optimizer.nesterov=perhaps", "true or false"),
        ("tags=[2]", "a text"),
        ("folder=[1]", "a path"),
        ("colour.name=null", "one of red, blue"),
        ("optimizer.typo=1", "a key of the section optimizer (`generative config schema optimizer` lists them)"),
    ],
)
def test_mistakes_are_told_in_three_plain_parts(write, override, expected):
    write("mine.yaml", "steps: 1\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [override], schema)
    key = override.partition("=")[0]
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(key)
    assert "(command line)" in first
    assert not first.endswith(".")
    assert second == f"expected: {expected}"
    assert third.startswith("to fix: ")
    assert key in third
    assert not any(word in str(caught.value) for word in ("Input", "instance", "dictionary", "integer", "None"))


def test_values_are_shown_as_they_are_written(write):
    write("mine.yaml", "steps: null\noptimizer: {nesterov: maybe, mode: fsat}\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [f"tags=[[{'x' * 500}]]"], schema)
    assert "steps: null is not valid (mine.yaml line 1)\n" in str(caught.value)
    assert 'optimizer.mode: "fsat" is not valid (mine.yaml line 2). Did you mean fast?\n' in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 120


def test_missing_keys_are_told_with_what_to_give(write):
    class Needed(Config):
        data: Inner
        path: str

    write("mine.yaml", "data: {}\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], lambda values: Needed)
    assert str(caught.value).splitlines() == [
        "path: missing",
        "expected: a value, since there is no default",
        "to fix: set path in the configuration or give path=VALUE",
    ]


class Checked(Config):
    low: int = 0
    high: int = 1
    plain: int = 0

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise combination(f"low={self.low} is above high={self.high}", "low <= high", "lower low")
        if self.plain == 1:
            raise ValueError("plain is one")
        if self.plain == 2:
            raise ValueError("plain is two. Make it less, or leave it out")
        return self


class Chosen(Checked):
    name: Literal["chosen"] = "chosen"


class Outer(Config):
    part: Checked = Checked()
    choice: Annotated[Chosen | Red, Field(discriminator="name")] = Chosen()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("part.low=3", ["low=3 is above high=1 (command line)", "expected: low <= high", "to fix: lower low"]),
        ("part.plain=1", ["plain is one (command line)", "to fix: correct part"]),
        ("part.plain=2", ["plain is two (command line)", "to fix: make it less, or leave it out"]),
    ],
)
def test_what_validators_say_keeps_its_parts(write, override, told):
    write("mine.yaml", "part: {}\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [override], lambda values: Outer)
    assert str(caught.value).splitlines() == [f"part: {told[0]}", *told[1:]]
    # Of a section that is chosen by name, the key is the section's, without the name.
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", ["choice.name=chosen", override.replace("part", "choice")], lambda values: Outer)
    assert str(caught.value).splitlines() == [
        line.replace("part", "choice") for line in [f"part: {told[0]}", *told[1:]]
    ]


def test_of_many_mistakes_the_first_are_told_and_the_rest_counted(write):
    write("mine.yaml", "".join(f"wrong{number}: 1\n" for number in range(9)))
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert str(caught.value).count("unknown key") == 5
    assert str(caught.value).endswith("... and 4 more")


@pytest.mark.parametrize("value", ["*.py", "**/*.md", "!x", "%d", "@home", "a: b: c", "2024-13-45", "|x"])
def test_values_that_are_no_yaml_are_the_texts_that_they_are(write, value):
    write("mine.yaml", "steps: 1\n")
    assert load("mine.yaml", [f"folder={value}"], schema).folder == Path(value)


@pytest.mark.parametrize("value", ["[1", "{a: 1", '"open', "'open", "[*x]"])
def test_unfinished_yaml_on_the_command_line(write, value):
    write("mine.yaml", "steps: 1\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [f"tags={value}"], schema)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"override {f'tags={value}'!r}: the value is not readable as YAML: ")
    assert "tags" in lines[2]
    assert "<unicode string>" not in str(caught.value)


def test_several_mistakes_are_told_at_once(write):
    write("mine.yaml", "steps: x\ntgs: []\n")
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert 'steps: "x"' in str(caught.value)
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


class Named(Root):
    name: str = ""


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        (["optimizer.lrr=1", "name=mine"], "optimizer.lrr"),
        (["colour.shad=1", "colour.name=red"], "colour.shad"),
        (["colour.shade=1", "colour.name=blue"], "colour.shade"),
        (["stps=1", "name=mine", "colour.name=blue"], "stps"),
    ],
)
def test_a_name_hides_no_mistake(write, overrides, wrong):
    write("mine.yaml", "colour: {name: red}\nname: one\n")
    with pytest.raises(ConfigError, match=f"^{wrong}: unknown key"):
        load("mine.yaml", overrides, lambda values: Named)


def test_naming_a_choice_again_drops_nothing(write):
    write("below.yaml", "colour: {name: red, shad: 5}\n")
    write("mine.yaml", "extends: below.yaml\ncolour: {name: red}\nname: mine\n")
    with pytest.raises(ConfigError, match=r"^colour.shad: unknown key \(.*below.yaml line 1"):
        load("mine.yaml", [], lambda values: Named)


def test_delete_brings_the_default_back(write):
    write("mine.yaml", "optimizer: {lr: 5}\n")
    assert load("mine.yaml", ["~optimizer.lr"], schema).optimizer.lr == 0.1


def test_missing_configuration_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean masked_diffusion/quickstart"):
        find_config("masked_diffusion/quickstar")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: 1\ntags: [1\n", "mine.yaml line 3: not readable as YAML"),
        ("- 1\n- 2\n", "mine.yaml: holds a list"),
        (
            "steps: 1\nsteps: 2\n",
            "mine.yaml line 2: not readable as YAML: while constructing a mapping found duplicate",
        ),
        ("extends: 5\n", "extends: 5 is not valid (mine.yaml line 1)"),
        (f"steps: {'[' * 1000}{']' * 1000}\n", "mine.yaml: nested too deeply"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
            "mine.yaml: not readable as YAML: aliases (*name) that stand for more than 100,000 values",
        ),
        ("steps: &a {b: *a}\n", "mine.yaml: not readable as YAML: aliases"),
        ("steps: *x\n", "mine.yaml line 1: not readable as YAML: found undefined alias"),
    ],
)
def test_broken_files(write, text, told):
    write("mine.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", [], schema)
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 3
    assert "<unicode string>" not in str(caught.value)


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "a\u2029", "\ufeff", "a\nb ", "\x00", "no", "1e-3", "~"])
def test_unusual_texts_survive_the_resolved_yaml(text):
    layers = configuration.Layers()
    layers.merge(yaml.safe_load(to_yaml(Root(tags=[text]))), "resolved", {})
    assert validate(layers, Root).tags == [text]


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
