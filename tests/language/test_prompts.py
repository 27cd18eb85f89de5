"""Prompt templates: exactly one image slot, known fields, messages that say what to write."""

import pytest

from rrg.data.study import Sections, Study
from rrg.errors import UserError
from rrg.language.options import R2GENGPT_PROMPT
from rrg.language.prompts import Prompt

STUDY = Study(id="S1", patient="P1", split="train", sections=Sections(indication=" chest\n pain ", comparison="none"))


@pytest.mark.parametrize(
    "template,message",
    [
        ("report :", "0 image slots"),
        ("{image} and {image}", "2 image slots"),
        ("{image", "language.prompt: .*literal braces"),
        ("image}", "language.prompt: .*literal braces"),
        ("{image} {history}", "unknown field {history}"),
        ("{image} {}", "unknown field {}"),
        ("{image} {0}", "unknown field {0}"),
        ("{image} {indication.id}", "unknown field {indication.id}"),
        ("{image!r} report", "plain {image}"),
        ("{image:>5} report", "plain {image}"),
        ("{image} {indication!x}", "plain {indication}"),
        ("{image} {indication:{comparison}}", "plain {indication}"),
        ("{{image}}", "0 image slots"),
    ],
)
def test_malformed_templates_are_refused_in_one_line(template, message):
    with pytest.raises(UserError, match=message) as caught:
        Prompt.parse(template)
    assert "\n" not in str(caught.value)


def test_the_published_prompt():
    prompt = Prompt.parse(R2GENGPT_PROMPT)
    assert (prompt.before, prompt.after[:6]) == ("Human: <Img>", "</Img>")
    assert not prompt.reads_study and prompt.blank() == prompt.fill(STUDY)


@pytest.mark.parametrize("template", ["{image}", "a {image}", "{image} b", "{indication}{image}{comparison}"])
def test_the_slot_may_stand_anywhere(template):
    prompt = Prompt.parse(template)
    assert "".join(prompt.fill(STUDY)) == template.format(image="", indication="chest pain", comparison="none")
    assert "".join(prompt.blank()) == template.format(image="", indication="", comparison="")


def test_doubled_braces_are_literal_on_both_sides():
    prompt = Prompt.parse("{{image}} {image} {{indication}} {indication} {{}}")
    assert prompt.fill(STUDY) == ("{image} ", " {indication} chest pain {}")
    assert prompt.blank() == ("{image} ", " {indication}  {}")
    assert prompt.reads_study
    assert not Prompt.parse("{image} {{indication}}").reads_study
