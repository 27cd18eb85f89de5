"""`rrg config show|diff|explain`: what is printed can be fed back, and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrg.cli import main
from rrg.cli.config import annotated
from rrg.recipe import load_recipe

RECIPES = ("recipes/r2gengpt_iu", "recipes/r2gengpt_delta_mimic", "tiny/r2gengpt_deep_iu")
AWKWARD = (
    "language.prompt='Human: \"{image}\" # no comment: [INST] a: b \\n {indication}'",
    "train.betas=[0.5,0.75]",
    "train.lr_by_part={connector: 1e-3}",
    "vision.layer=-2",
    "stages={text: {vision: {kind: none}, connector: {kind: words}, train: {validate_reports: false}, language: {train: full}}}",
)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["config", *words]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


@pytest.mark.parametrize("flags", [(), ("--plain",)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_shown_is_a_recipe(recipe: str, flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for overrides in ((), AWKWARD):
        shown = tmp_path / "shown.yaml"
        shown.write_text(said(capsys, "show", recipe, *flags, *overrides))
        assert load_recipe(shown).value == load_recipe(recipe, overrides).value
        again = said(capsys, "show", str(shown), "--plain")
        assert again == said(capsys, "show", recipe, "--plain", *overrides)


def test_origins_stand_beside_what_was_set(capsys: pytest.CaptureFixture[str]):
    lines = said(capsys, "show", "recipes/r2gengpt_iu", "train.lr=3e-4", *AWKWARD[:4]).splitlines()
    beside = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in lines}
    assert beside["lr"] == "train.lr=3e-4" and beside["micro_batch_size"] == "iu_xray.yaml" and beside["keep"] == ""
    assert beside["protocol"] == "iu_xray.yaml" and beside["dtype"] == "r2gengpt.yaml"
    assert beside["betas"] == AWKWARD[1] and beside["layer"] == AWKWARD[3]
    assert sum("language.prompt=" in line for line in lines) == 1
    assert lines[0].startswith("# recipes/r2gengpt_iu")


def test_a_comment_never_falls_inside_a_text():
    text = 'a: "first\n  second"\nb:\n  c: 1\n  d: {}\ne:\n- 1\n- 2\n'
    lines = annotated(text, {"a": "one", "b.c": "two", "b.d": "three\nlines", "e": "four", "gone": "five"})
    assert [line.partition("  # ")[2] for line in lines] == ["", "one", "", "two", "three lines", "four", "", ""]


def test_two_systems_are_the_difference_of_two_short_files(capsys: pytest.CaptureFixture[str]):
    rows = said(capsys, "diff", "recipes/r2gengpt_iu", "recipes/r2gengpt_delta_iu").splitlines()
    assert [row.split("│")[1].strip() for row in rows if row.startswith("│")] == ["vision.train"]
    assert "equal" in said(capsys, "diff", "recipes/r2gengpt_iu", "recipes/r2gengpt_iu", "train.lr=0.5")
    table = said(
        capsys, "diff", "recipes/r2gengpt_iu", "tiny/r2gengpt_deep_mimic", "data.section=findings", "score.protocol=findings"
    )
    assert "data.section" not in table and "vision.architecture" in table and "embed_dim" in table and "—" in table


def test_values_that_look_like_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, prompt in (("a", "[INST] {image} [/INST]"), ("b", "[bold]{image}[/red]")):
        said(capsys, "show", "tiny/r2gengpt_iu", "--plain")
        (tmp_path / f"{name}.yaml").write_text(load_recipe("tiny/r2gengpt_iu", [f"language.prompt='{prompt}'"]).to_yaml())
    table = said(capsys, "diff", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert "[INST] {image} [/INST]" in table and "[bold]{image}[/red]" in table


def test_explain_names_every_option_whole(capsys: pytest.CaptureFixture[str]):
    table = said(capsys, "explain", "train")
    assert "train.schedule.warmup_steps" in table and "train.micro_batch_size" in table and "…" not in table
    assert "data.shards" not in table
    part = said(capsys, "explain", "vision.swin")
    assert "vision.lora.targets" in part and "microsoft/swin-base-patch4-window7-224" in part
    kinds = said(capsys, "explain", "connector")
    assert "connector.linear: " in kinds and "connector.words: " in kinds
    everything = said(capsys, "explain")
    assert all(name in everything for name in ("train.lr ", "data.shards", "generate.num_beams", "score.protocol", "stages"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "r2gengpt_ui"], "did you mean 'r2gengpt_iu'"),
        (["show", "tiny/r2gengpt_iu", "train.lrr=1"], "train.lrr: no such key; did you mean 'lr'"),
        (["show", "tiny/r2gengpt_iu", "train.lr"], "override 'train.lr': write key=value"),
        (["diff", "tiny/r2gengpt_iu"], "required: right"),
        (["explain", "trian"], "'trian': no such section; did you mean 'train"),
        (["explain", "vision.swn"], "no vision part is called 'swn'; did you mean 'swin'"),
        (["shwo"], "invalid choice: 'shwo'"),
        ([], "required: show|diff|explain"),
    ],
)
def test_mistakes_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    error = said(capsys, *words, code=2)
    assert says in error and error.count("\n") == 1 and error.startswith("rrg: ")


@pytest.mark.parametrize("verb", ["show", "diff", "explain"])
def test_help_of_a_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["config", verb, "--help"])
    assert left.value.code == 0
    assert f"rrg config {verb}" in capsys.readouterr().out.partition("examples:")[2]
