"""From a study to token ids: the report to be written, and the text of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import section_text
from rrg.data.study import Study
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.language.prompts import Prompt


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, without special tokens."""
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def words_of(section: str) -> tuple[str, ...]:
    """The study sections whose words make up the target's length."""
    return ("findings", "impression") if section == "findings_impression" else (section,)


@dataclass(frozen=True)
class Tokens:
    """Token ids of one study. `truncated` says that the report's end (and its end symbol) was cut; `masked` tells for each
    report token whether it is to be predicted from the others, and is empty where nothing was drawn."""

    before: list[int]
    after: list[int]
    report: list[int]
    truncated: bool
    masked: tuple[bool, ...] = ()


class Tokeniser:
    """Study → ids, with the recipe's section, cleaning, prompt and length. Picklable, for loader workers."""

    def __init__(self, tokenizer: Any, prompt: Prompt, *, section: str, cleaning: str, max_report_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._section = section
        self._clean = CLEANINGS[cleaning]
        self._most = max_report_tokens
        self._lead = self._pieces(prompt.lead)
        self._constant: tuple[list[int], list[int]] | None = None
        if not prompt.reads_study:
            self._constant = self.blank_prompt()

    def drawn(self, draw: int, *, training: bool) -> Tokeniser:
        """What reads one study whose random choices `draw` seeds. A report that is to be written is read as it is."""
        return self

    def clean(self, study: Study) -> str:
        """The cleaned target text."""
        return self._clean(section_text(study.sections, self._section))

    @property
    def reads_study(self) -> bool:
        """Whether the prompt holds text of the study."""
        return self._constant is None

    @property
    def reads_prior(self) -> bool:
        """Whether the prompt holds the report of the prior."""
        return self._prompt.reads_prior

    def prompt_ids(self, study: Study, prior: Study | None = None) -> tuple[list[int], list[int]]:
        """Ids of the text before and after the image slot; `prior` is the study that `{prior}` is filled from."""
        if self._constant is not None:
            return self._constant
        before, after = self._prompt.fill(study, prior)
        return encode(self._tokenizer, before), encode(self._tokenizer, after)

    def __call__(self, study: Study, prior: Study | None = None) -> Tokens:
        """Ids of the prompt's two pieces and of the report with its end symbol, cut at `max_report_tokens`."""
        before, after = self.prompt_ids(study, prior)
        report = [*self._report_ids(self.clean(study)), self._tokenizer.eos_token_id]
        return Tokens(before, after, report[: self._most], len(report) > self._most)

    def _report_ids(self, text: str) -> list[int]:
        """Ids of a report. What looks like a special symbol is ordinary text: an end symbol inside would teach to stop there."""
        if not text:
            return []
        tokenizer, ids = self._tokenizer, self._answer(text)
        specials = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} - {tokenizer.unk_token_id}
        unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        # Whole words have no smaller pieces to be written in: they become unknown words.
        return [piece for i in ids for piece in (unknown if i in specials else [i])]

    def _answer(self, text: str) -> list[int]:
        """Ids of a report as it stands behind the prompt, told by the ids themselves: with the space between the two, where the
        prompt ends in one.

        Raises:
            UserError: the tokenizer makes one piece of the prompt's end and the report's beginning.
        """
        if not self._lead:
            return self._pieces(text)
        ids = self._pieces(f"{self._prompt.lead} {text}")
        if ids[: len(self._lead)] != self._lead:
            raise UserError(
                f"language.prompt: this tokenizer joins its end ({self._prompt.lead!r} and a space) with a report's first word; "
                "end the prompt without a space"
            )
        return ids[len(self._lead) :]

    def _pieces(self, text: str) -> list[int]:
        if not text:
            return []
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def blank_prompt(self) -> tuple[list[int], list[int]]:
        """The prompt's two pieces with every field of the study empty."""
        before, after = self._prompt.blank()
        return encode(self._tokenizer, before), encode(self._tokenizer, after)
