"""Layers, strictness and messages of configuration loading."""

from dataclasses import dataclass

import pytest

from rrg.config.family import Family
from rrg.config.load import load, merge
from rrg.config.schema import flatten, option, part, parts, plain, section, typed
from rrg.errors import UserError

SHAPE = Family("shape")


@dataclass
class Round:
    kind: str = option("round", "")
    radius: float = option(1.0, "")


@dataclass
class Square:
    kind: str = option("square", "")
    side: int = option(2, "")
    tags: list[str] = option([], "")


@SHAPE.kind("round", Round)
def build_round(options, context=None):
    """A circle."""
    return ("round", options.radius)


@SHAPE.kind("square", Square)
def build_square(options):
    """A square."""
    return ("square", options.side)


@dataclass
class Inner:
    rate: float = option(0.1, "a rate")
    steps: int | None = option(None, "how many")
    table: dict[str, float] = option({}, "by name")

    def check(self, path):
        if self.rate < 0:
            raise UserError(f"{path}.rate: below 0")


@dataclass
class Top:
    name: str = option("x", "")
    output: str = option("runs/${name}", "")
    inner: Inner = section(Inner, "")
    shape: object = part(SHAPE, "round", "")
    shapes: object = parts(SHAPE, {"round": "round"}, "")


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_layers_from_defaults_over_bases_and_recipe_to_overrides(tmp_path):
    write(tmp_path, "a.yaml", "inner: {rate: 0.5, steps: 3}")
    write(tmp_path, "b.yaml", "base: a.yaml\ninner: {rate: 0.25}")
    recipe = write(tmp_path, "c.yaml", "base: [b.yaml]\nname: mine\nshape: {kind: square, side: 7}")
    loaded = load(Top, recipe, ["inner.steps=9", "inner.table.a=1e-3"])
    assert (loaded.value.inner.rate, loaded.value.inner.steps, loaded.value.inner.table) == (0.25, 9, {"a": 1e-3})
    assert loaded.value.output == "runs/mine"
    assert loaded.value.shape == Square(side=7)
    assert loaded.origins["inner.rate"] == "b.yaml" and loaded.origins["inner.steps"] == "inner.steps=9"


def test_a_resolved_configuration_loads_to_the_same(tmp_path):
    recipe = write(tmp_path, "c.yaml", "name: mine\nshape: {kind: square}\nshapes: {a: {kind: square, tags: [u, v]}}")
    first = load(Top, recipe, ["inner.rate=3"])
    second = load(Top, write(tmp_path, "d.yaml", first.to_yaml()))
    assert plain(first.value) == plain(second.value)


def test_another_kind_starts_from_its_own_defaults(tmp_path):
    base = write(tmp_path, "a.yaml", "shape: {kind: round, radius: 4}")
    recipe = write(tmp_path, "b.yaml", f"base: {base.name}\nshape: {{kind: square}}")
    assert load(Top, recipe).value.shape == Square()
    assert load(Top, base, ["shape.kind=square", "shape.side=5"]).value.shape == Square(side=5)


def test_merge_keeps_what_a_layer_does_not_name():
    target = {"a": {"kind": "x", "b": 1}, "c": 2}
    merge(target, {"a": {"b": 3}, "d": {"e": 4}})
    assert target == {"a": {"kind": "x", "b": 3}, "c": 2, "d": {"e": 4}}


@pytest.mark.parametrize(
    "overrides,parts_of_message",
    [
        (["inner.rat=1"], ["inner.rat", "did you mean 'rate'"]),
        (["naem=1"], ["naem", "'name'"]),
        (["inner.rate=fast"], ["inner.rate", "'fast'", "a number"]),
        (["inner.steps=1.5"], ["inner.steps", "a whole number or null"]),
        (["shape.kind=sqare"], ["shape.kind", "'sqare'", "did you mean 'square'"]),
        (["shape.side=1"], ["shape.side", "no such key"]),
        (["inner=5"], ["inner", "section"]),
        (["shapes.a.kind=nope"], ["shapes.a.kind", "legal: round, square"]),
        (["inner.table.a=x"], ["inner.table", "a mapping of text, a number"]),
        (["inner.rate=-1"], ["inner.rate: below 0"]),
        (["rate"], ["override 'rate'", "key=value"]),
        (["output=${nothing}"], ["cannot be resolved"]),
    ],
)
def test_mistakes_are_answered_with_path_value_and_legal_names(tmp_path, overrides, parts_of_message):
    recipe = write(tmp_path, "c.yaml", "name: mine")
    with pytest.raises(UserError) as caught:
        load(Top, recipe, overrides)
    for text in parts_of_message:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text,message",
    [("a: [1", "not readable as YAML"), ("- 1", "expected sections"), ("base: gone.yaml", "'gone.yaml' does not exist")],
)
def test_broken_files_are_named(tmp_path, text, message):
    recipe = write(tmp_path, "c.yaml", text)
    with pytest.raises(UserError, match=message):
        load(Top, recipe)


def test_bases_in_a_circle_and_missing_recipes(tmp_path):
    write(tmp_path, "a.yaml", "base: b.yaml")
    write(tmp_path, "b.yaml", "base: a.yaml")
    with pytest.raises(UserError, match="include it again"):
        load(Top, tmp_path / "a.yaml")
    with pytest.raises(UserError, match="did you mean 'r2gengpt_iu'"):
        load(Top, "r2gengpt_ui")


def test_yaml_cannot_build_python_objects(tmp_path):
    recipe = write(tmp_path, "c.yaml", "name: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not readable as YAML"):
        load(Top, recipe)


def test_flatten_and_typed_are_inverse_for_leaves():
    data = plain(typed(Top, {"inner": {"rate": 2}}))
    assert dict(flatten(data))["inner.rate"] == 2.0
    assert dict(flatten(data))["shape.kind"] == "round"


def test_families_build_and_refuse():
    assert SHAPE.build(Square(side=3)) == ("square", 3)
    with pytest.raises(TypeError):
        SHAPE.kind("other", Square)
