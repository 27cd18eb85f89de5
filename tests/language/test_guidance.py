"""Guided decoding: the formula against plain forward passes without a cache, and its limits."""

import dataclasses

import pytest
import torch

from rrg.batching.batch import Prefix
from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed, typed_part
from rrg.errors import UserError
from rrg.language.decoding import Decoding
from rrg.language.family import LANGUAGE
from rrg.language.guidance import Guidance

TEXTS = ["the lungs are clear .", "the heart is large .", "small effusion on the left side ."]
GREEDY = Decoding(num_beams=1, repetition_penalty=1.0, min_new_tokens=3, max_new_tokens=7)


@pytest.fixture(scope="module")
def language():
    torch.manual_seed(3)
    options = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 32, "min_count": 1}
    options = typed_part(LANGUAGE, {"kind": "small_llama", **options}, "language", "small_llama")
    made = LANGUAGE.build(options, context=BuildContext(train_texts=lambda: TEXTS)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(6.0)  # far from uniform, so that choices differ
    return made


@pytest.fixture
def batch(language):
    """Three studies whose prompts differ in length, so that the text after the slot is padded."""
    ids = [language.tokenizer(text)["input_ids"] for text in TEXTS]
    return collate(
        [Item(str(i), Tokens(before=ids[0][:2], after=row[: 1 + i], report=row, truncated=False)) for i, row in enumerate(ids)]
    )


@pytest.fixture
def prefix(language):
    return Prefix(torch.randn(3, 5, language.width, generator=torch.Generator().manual_seed(0)))


def next_token(language, prefix, batch, written):
    """log-probabilities [B, W] of the next token after `written` [B, t], by one pass over the whole sequence."""
    embeds, mask = language.sequence(prefix, batch, report=False)
    embeds = torch.cat([embeds, language.embed(written)], 1)
    mask = torch.cat([mask, mask.new_ones(written.shape)], 1)
    positions = mask.cumsum(1).sub(1).clamp_min(0)
    logits = language.model(inputs_embeds=embeds, attention_mask=mask.long(), position_ids=positions).logits
    return logits[:, -1].float().log_softmax(-1)


def by_hand(language, prefix, batch, decoding):
    written = torch.zeros(3, 0, dtype=torch.long)
    for step in range(decoding.max_new_tokens):
        seeing, blind = (next_token(language, given, batch, written) for given in (prefix, None))
        if step < decoding.min_new_tokens:
            seeing[:, language.tokenizer.eos_token_id] = -torch.inf
        # After an end symbol rows only hold padding: what is chosen there no longer matters.
        score = blind + decoding.guidance * (seeing.log_softmax(-1) - blind)
        plausible = seeing >= seeing.amax(-1, keepdim=True) + torch.tensor(decoding.guidance_plausibility).log()
        written = torch.cat([written, score.masked_fill(~plausible, -torch.inf).argmax(-1, keepdim=True)], 1)
    end = language.tokenizer.eos_token_id
    return [language._text(row, end) for row in written.tolist()]


@pytest.mark.parametrize("scale,plausibility", [(1.5, 0.1), (3.0, 0.01), (0.5, 0.1), (4.0, 1.0)])
@torch.no_grad()
def test_reports_are_those_of_the_formula(language, batch, prefix, scale, plausibility):
    decoding = dataclasses.replace(GREEDY, guidance=scale, guidance_plausibility=plausibility)
    assert language.generate(prefix, batch, decoding) == by_hand(language, prefix, batch, decoding)


@torch.no_grad()
def test_extremes(language, batch, prefix):
    plain = language.generate(prefix, batch, GREEDY)
    only_likeliest = dataclasses.replace(GREEDY, guidance=5.0, guidance_plausibility=1.0)
    assert language.generate(prefix, batch, only_likeliest) == plain
    all_blind = dataclasses.replace(GREEDY, guidance=0.0, guidance_plausibility=0.0)
    assert language.generate(prefix, batch, all_blind) == language.generate(None, batch, GREEDY) != plain
    strong = dataclasses.replace(GREEDY, guidance=5.0, guidance_plausibility=0.01)
    assert language.generate(prefix, batch, strong) != plain
    assert language.generate(None, batch, strong) == language.generate(None, batch, GREEDY)


@torch.no_grad()
def test_what_another_rule_forbids_stays_forbidden(language, batch):
    embeds, mask = language.sequence(None, batch, report=False)
    scores = torch.zeros(3, len(language.tokenizer))
    scores[:, 4] = -torch.inf
    scores[:, 5] = -20.0
    guided = Guidance(language.model, embeds, mask, scale=0.0, plausibility=0.1)(torch.zeros(3, 0, dtype=torch.long), scores)
    assert guided[:, 4].isneginf().all() and guided[:, 5].isneginf().all()
    assert guided[:, 6:].isfinite().all()


def test_sampling_is_guided_and_repeats_with_its_seed(language, batch, prefix):
    settings = {"do_sample": True, "temperature": 8.0, "guidance": 1.5, "guidance_plausibility": 0.0}
    written = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        written.append(language.generate(prefix, batch, dataclasses.replace(GREEDY, **settings)))
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"guidance": 1.5}, "guidance: 1.5 with num_beams 3; .*write num_beams=1"),
        ({"guidance": -1.0, "num_beams": 1}, "guidance: -1.0 is below 0; write a number at least 0"),
        ({"guidance": float("nan"), "num_beams": 1}, "guidance: nan"),
        ({"guidance_plausibility": 1.5}, "guidance_plausibility: 1.5"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        typed(Decoding, settings, "generate")
