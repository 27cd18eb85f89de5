"""The conversation around the user's message, and where a report's first piece begins, for two ways of keeping spaces."""

import pytest

from rrg.batching.tokenise import Tokeniser
from rrg.data.study import Sections, Study
from rrg.errors import UserError
from rrg.language.conversation import CONVERSATIONS, conversation
from rrg.language.prompts import Prompt
from rrg.recipe import load_recipe

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the human's questions."
)
BEFORE = f"{SYSTEM} USER: "
AFTER = "\nProvide a detailed description of the findings in the radiology image. ASSISTANT:"
REPORT = "The lungs are clear. No effusion (1.5 cm)."
STUDY = Study(id="S1", patient="P1", split="train", sections=Sections(findings=REPORT))


def llama_like():
    """Pieces carry the blank before them as ▁, and one is added at the beginning of every text, as Llama's tokenizer does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=specials, show_progress=False)
    made.train_from_iterator([BEFORE, AFTER, REPORT, REPORT, ": ("], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", bos_token="<s>", eos_token="</s>")


def bytes_like():
    """Byte-level pieces, as GPT-2 and SmolLM2 have: nothing is added before a text."""
    from rrg.language.tokenizer import train_tokenizer

    return train_tokenizer("bpe", [REPORT] * 3, BEFORE + AFTER, min_count=1, vocabulary=400)


def tokeniser(tokenizer, template, most=60, section="findings"):
    prompt = Prompt.parse(template)
    return Tokeniser(tokenizer, prompt, section=section, cleaning="whitespace", max_report_tokens=most)


@pytest.fixture(scope="module")
def template():
    return load_recipe("gla_ai4biomed_rrg24").value.language.whole_prompt


def test_the_golden_prompt(template):
    assert template.format(image="<image>") + REPORT + "</s>" == f"{BEFORE}<image>{AFTER} {REPORT}</s>"
    prompt = Prompt.parse(template)
    assert (prompt.before, prompt.after, prompt.lead) == (BEFORE, AFTER, "ASSISTANT:")
    vicuna = conversation("vicuna_v1", "{image}")
    ours, theirs = (text.replace("'s", "").split() for text in (conversation("libra_v0", "{image}"), vicuna))
    assert [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b] == [("human", "user")] * 2
    assert conversation("plain", "{image} write") == "{image}" and conversation("", "as it is") == "as it is"
    assert set(CONVERSATIONS) == {"libra_v0", "vicuna_v1", "plain"}


@pytest.mark.parametrize("make", [llama_like, bytes_like])
def test_the_first_supervised_piece_is_the_first_of_the_report(template, make):
    tokenizer = make()
    tokens = tokeniser(tokenizer, template)(STUDY)
    report = tokenizer.decode(tokens.report[:-1])
    assert report.strip() == REPORT and tokens.report[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens.after + tokens.report).strip() == f"{AFTER} {REPORT}</s>".strip()
    assert tokenizer.decode(tokens.before) == BEFORE
    for ids in (tokens.before, tokens.after, tokens.report):
        assert tokenizer.bos_token_id not in ids, "the language part puts the one there is"
    first = tokenizer.convert_ids_to_tokens(tokens.report[:1])[0]
    assert first.startswith(("▁T", "ĠT")), "its blank is its own, no piece by itself"
    whole = tokenizer(f"{AFTER} {REPORT}", add_special_tokens=False)["input_ids"]
    assert [*tokens.after, *tokens.report[:-1]] == whole, "as if read in one"


@pytest.mark.parametrize("make", [llama_like, bytes_like])
def test_prompts_without_a_blank_at_the_end_are_as_they_were(make):
    tokenizer = make()
    tokens = tokeniser(tokenizer, "{image} ASSISTANT:")(STUDY)
    assert tokens.report[:-1] == tokenizer(REPORT, add_special_tokens=False)["input_ids"]
    for template in ("{image} ", "{image} {indication} "):
        assert not Prompt.parse(template).lead


def test_an_end_symbol_in_a_report_is_text_behind_a_blank_too(template):
    tokenizer = bytes_like()
    marked = Study(id="S1", patient="P1", split="train", sections=Sections(findings="Clear </s> lungs."))
    tokens = tokeniser(tokenizer, template)(marked)
    assert (
        tokens.report.count(tokenizer.eos_token_id) == 1 and tokenizer.decode(tokens.report[:-1]).strip() == "Clear </s> lungs."
    )
    empty = Study(id="S1", patient="P1", split="train", sections=Sections())
    assert tokeniser(tokenizer, template)(empty).report == [tokenizer.eos_token_id]


def test_a_tokenizer_that_joins_prompt_and_report_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    table = {piece: place for place, piece in enumerate(["<unk>", "</s>", *"abc: ", ": ", ": a"])}
    made = Tokenizer(models.BPE(table, [(":", " "), (": ", "a")], unk_token="<unk>"))
    joining = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<unk>", eos_token="</s>")
    study = Study(id="S1", patient="P1", split="train", sections=Sections(findings="abc"))
    with pytest.raises(UserError, match=r"language\.prompt: this tokenizer joins its end \('c:' and a space\)"):
        tokeniser(joining, "{image} c: ")(study)


@pytest.mark.parametrize("name,said", [("libra_v1", "language.template: 'libra_v1' is not known; did you mean 'libra_v0'")])
def test_conversations_that_are_not_known(name, said):
    with pytest.raises(UserError) as caught:
        load_recipe("tiny/gla_ai4biomed_rrg24", [f"language.template={name}"])
    assert said in str(caught.value)
