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
    """A checked template."""

    before: str
    after: str

    @classmethod
    def parse(cls, template: str, where: str = "language.prompt") -> Prompt:
        """Raises UserError for a malformed template, an unknown field, or not exactly one `{image}`."""
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise UserError(f"{where}: {error}; write literal braces as {{{{ and }}}}") from None
        for name in names:
            if name not in ("image", *STUDY_FIELDS):
                raise UserError(f"{where}: unknown field {{{name}}}; legal: {{image}}, {{indication}}, {{comparison}}")
        if names.count("image") != 1:
            raise UserError(f"{where}: {names.count('image')} image slots; write {{image}} exactly once")
        before, after = template.split("{image}")
        return cls(before, after)

    @property
    def reads_study(self) -> bool:
        """Whether the prompt holds text of the study: if not, what is generated depends on the films alone."""
        return any(f"{{{name}}}" in self.before + self.after for name in STUDY_FIELDS)

    def fill(self, study: Study) -> tuple[str, str]:
        """The text before and after the image slot for `study`."""
        fields = {name: " ".join(getattr(study.sections, name).split()) for name in STUDY_FIELDS}
        return self.before.format(**fields), self.after.format(**fields)

    def blank(self) -> tuple[str, str]:
        """The text around the image slot with every field of the study empty."""
        fields = dict.fromkeys(STUDY_FIELDS, "")
        return self.before.format(**fields), self.after.format(**fields)
