"""The text around the image slot.

A template is plain text with exactly one `{image}` and, optionally, `{indication}` and `{comparison}`, which are filled from the
study's sections. Example (R2GenGPT): `Human: <Img>{image}</Img> Generate … image. \\nAssistant:`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from rrg.data.study import Study
from rrg.errors import UserError

STUDY_FIELDS = ("indication", "comparison")


@dataclass(frozen=True)
class Prompt:
    """A checked template: what stands before the image slot and after it, with fields and doubled braces as written."""

    before: str
    after: str

    @classmethod
    def parse(cls, template: str, where: str = "language.prompt") -> Prompt:
        """Raises UserError for a malformed template, an unknown field, or not exactly one `{image}`."""
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UserError(f"{where}: {error}; write literal braces as {{{{ and }}}}") from None
        names = [name for _, name, _, _ in pieces]
        for _, name, form, conversion in pieces:
            if name not in (None, "image", *STUDY_FIELDS):
                raise UserError(f"{where}: unknown field {{{name}}}; legal: {{image}}, {{indication}}, {{comparison}}")
            if form or conversion:
                raise UserError(f"{where}: field {{{name}}} carries a format; write plain {{{name}}}")
        if names.count("image") != 1:
            raise UserError(f"{where}: {names.count('image')} image slots; write {{image}} exactly once")
        texts = [_written(text, None if name == "image" else name) for text, name, _, _ in pieces]
        slot = names.index("image") + 1
        return cls("".join(texts[:slot]), "".join(texts[slot:]))

    @property
    def reads_study(self) -> bool:
        """Whether the prompt holds text of the study: if not, what is generated depends on the films alone."""
        return any(name for _, name, _, _ in string.Formatter().parse(self.before + self.after))

    def fill(self, study: Study) -> tuple[str, str]:
        """The text before and after the image slot for `study`."""
        fields = {name: " ".join(getattr(study.sections, name).split()) for name in STUDY_FIELDS}
        return self.before.format(**fields), self.after.format(**fields)

    def blank(self) -> tuple[str, str]:
        """The text around the image slot with every field of the study empty."""
        fields = dict.fromkeys(STUDY_FIELDS, "")
        return self.before.format(**fields), self.after.format(**fields)


def _written(text: str, field: str | None) -> str:
    """A literal text and the field after it as they stand in a template."""
    literal = text.replace("{", "{{").replace("}", "}}")
    return literal if field is None else f"{literal}{{{field}}}"
