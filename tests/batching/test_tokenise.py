"""From a study to token ids: lengths, prompts that read the study, blank prompts."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.tokenise import Tokeniser, encode, words_of
from rrg.data.study import Sections, Study
from rrg.errors import UserError
from rrg.language.prompts import Prompt
from rrg.language.tokenizer import train_tokenizer

TEXT = "the lungs are clear . the heart is normal ."
TOKENIZER = train_tokenizer("word", [TEXT], "given {indication} see {image} report :", min_count=1, vocabulary=0)
END = TOKENIZER.eos_token_id


def study(findings="The lungs are clear. The heart is normal.", **sections):
    return Study(id="S1", patient="P1", split="train", sections=Sections(findings=findings, **sections))


def tokeniser(prompt="{image} report :", most=60, section="findings", cleaning="clean_iu"):
    return Tokeniser(TOKENIZER, Prompt.parse(prompt), section=section, cleaning=cleaning, max_report_tokens=most)


@pytest.mark.parametrize("most", range(1, 15))
def test_a_report_is_cut_at_the_limit_and_says_so(most):
    whole = [*encode(TOKENIZER, TEXT), END]
    assert len(whole) == 11
    tokens = tokeniser(most=most)(study())
    assert tokens.report == whole[:most]
    assert tokens.truncated == (most < len(whole))
    assert (END in tokens.report) != tokens.truncated


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(1, 20))
def test_any_text_gives_at_most_the_limit_and_ends_or_is_truncated(text, most):
    tokens = tokeniser(most=most, cleaning="whitespace")(study(text))
    assert 1 <= len(tokens.report) <= most
    assert tokens.truncated or tokens.report[-1] == END
    assert END not in tokens.report[:-1]


@pytest.mark.parametrize("symbol", ["</s>", "<s>", "<pad>", "<unk>"])
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_symbol_written_in_a_report_does_not_end_it(symbol, kind):
    made = train_tokenizer(kind, ["heart normal"], "", min_count=1, vocabulary=300)
    reader = Tokeniser(made, Prompt.parse("{image}"), section="findings", cleaning="whitespace", max_report_tokens=60)
    ids = reader(study(f"heart {symbol} normal")).report
    assert ids[-1] == made.eos_token_id and ids.count(made.eos_token_id) == 1
    assert not {made.pad_token_id, made.bos_token_id} & set(ids)


def test_an_empty_report_is_its_end_symbol():
    assert tokeniser(cleaning="whitespace")(study("")).report == [END]


def test_prompts_with_fields_are_filled_from_each_study():
    reader = tokeniser("given {indication} see {image} report :")
    assert reader.reads_study
    before, after = reader.prompt_ids(study(indication="heart \n  normal"))
    assert before == encode(TOKENIZER, "given heart normal see ") and after == encode(TOKENIZER, " report :")
    assert reader.prompt_ids(study())[0] == encode(TOKENIZER, "given see")
    assert reader.blank_prompt() == reader.prompt_ids(study())
    tokens = reader(study(indication="clear"))
    assert (tokens.before, tokens.after) == reader.prompt_ids(study(indication="clear"))


def test_braces_in_a_study_are_text_not_fields():
    reader = tokeniser("given {indication} see {image} report :")
    before, _ = reader.prompt_ids(study(indication="{image} {comparison} {0}"))
    assert len(before) == 5


def test_constant_prompts_do_not_look_at_the_study():
    reader = tokeniser()
    assert not reader.reads_study
    assert reader.prompt_ids(study(indication="x")) is reader.prompt_ids(study())
    assert reader.blank_prompt() == reader.prompt_ids(study()) == ([], encode(TOKENIZER, "report :"))


def test_it_travels_to_loader_workers():
    copy = pickle.loads(pickle.dumps(tokeniser("given {indication} see {image} report :")))  # noqa: S301 (our own bytes)
    assert copy(study(indication="clear")) == tokeniser("given {indication} see {image} report :")(study(indication="clear"))


@pytest.mark.parametrize("section,expected", [("findings", "a"), ("impression", "b"), ("findings_impression", "a b")])
def test_the_target_is_the_section_that_the_recipe_names(section, expected):
    reader = tokeniser(section=section, cleaning="whitespace")
    assert reader.clean(study("a", impression="b")) == expected


def test_words_of():
    assert words_of("findings") == ("findings",)
    assert words_of("findings_impression") == ("findings", "impression")
    with pytest.raises(UserError, match="section"):
        tokeniser(section="history").clean(study())
