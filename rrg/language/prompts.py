"""The text around the image slot.

A template is plain text with exactly one `{image}` and, optionally, `{indication}` and `{comparison}`, which are filled from the
study's sections, and `{prior}`, the report (findings and impression) of the patient's previous study. Example (R2GenGPT):
`Human: <Img>{image}</Img> Generate … image. \\nAssistant:`.

A space at the very end belongs to the report: tokenizers keep a space with the word after it, so `ASSISTANT: ` followed by `The`
is read as `ASSISTANT:` and ` The`, in training as in generation.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from rrg.data.protocols import section_text
from rrg.data.study import Study
from rrg.errors import UserError

STUDY_FIELDS = ("indication", "comparison")
PRIOR_FIELD = "prior"


@dataclass(frozen=True)
class Prompt:
    """A checked template: what stands before the image slot and after it, with fields and doubled braces as written.

    `lead` is the last word of a template that ends in a space, which `after` leaves to the report; else it is empty.
    """

    before: str
    after: str
    lead: str = ""

    @classmethod
    def parse(cls, template: str, where: str = "language.prompt") -> Prompt:
        """Raises UserError for a malformed template, an unknown field, or not exactly one `{image}`."""
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(f"{where}: {error}; write literal braces as {{{{ and }}}}") from None
        names = [name for _, name, _, _ in pieces]
        for _, name, form, conversion in pieces:
            if name not in (None, "image", *STUDY_FIELDS, PRIOR_FIELD):
                legal = ", ".join(f"{{{field}}}" for field in ("image", *STUDY_FIELDS, PRIOR_FIELD))
                raise UserError(f"{where}: unknown field {{{name}}}; legal: {legal}")
            if form or conversion:
                raise UserError(f"{where}: field {{{name}}} carries a format; write plain {{{name}}}")
        if names.count("image") != 1:
            raise UserError(f"{where}: {names.count('image')} image slots; write {{image}} exactly once")
        texts = [_written(text, None if name == "image" else name) for text, name, _, _ in pieces]
        slot = names.index("image") + 1
        after = "".join(texts[slot:])
        lead = _lead(after)
        return cls("".join(texts[:slot]), after[:-1] if lead else after, lead)

    @property
    def reads_study(self) -> bool:
        """Whether the prompt holds text of the study: if not, what is generated depends on the films alone."""
        return bool(self._fields)

    @property
    def reads_prior(self) -> bool:
        """Whether the prompt holds the report of the patient's previous study."""
        return PRIOR_FIELD in self._fields

    @property
    def _fields(self) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(self.before + self.after) if name}

    def fill(self, study: Study, prior: Study | None = None) -> tuple[str, str]:
        """The text before and after the image slot for `study`; `{prior}` is empty where there is none.

        Raises ValueError where `prior` is the study itself: its report is what is to be written.
        """
        if prior is not None and prior.id == study.id:
            raise ValueError(f"study {study.id} given as its own prior")
        fields = {name: " ".join(getattr(study.sections, name).split()) for name in STUDY_FIELDS}
        report = "" if prior is None else section_text(prior.sections, "findings_impression")
        fields[PRIOR_FIELD] = " ".join(report.split())
        return self.before.format(**fields), self.after.format(**fields)

    def blank(self) -> tuple[str, str]:
        """The text around the image slot with every field of the study empty."""
        fields = dict.fromkeys((*STUDY_FIELDS, PRIOR_FIELD), "")
        return self.before.format(**fields), self.after.format(**fields)


def _lead(after: str) -> str:
    """The word before a space at the end of a template's text; empty where there is none, or where a field stands there."""
    words = after.split(" ")
    return words[-2] if len(words) > 1 and not words[-1] and not set(words[-2]) & set("{}") else ""


def _written(text: str, field: str | None) -> str:
    """A literal text and the field after it as they stand in a template."""
    literal = text.replace("{", "{{").replace("}", "}}")
    return literal if field is None else f"{literal}{{{field}}}"
