"""From a study to what a text tower reads: its report's ids, its sentences in a drawn order, and which words are hidden."""

from __future__ import annotations

import copy
import random
import re
from typing import Any

from rrg.batching.tokenise import Tokens
from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import section_text
from rrg.data.study import Study

# A full stop or question mark before a space ends a sentence, unless an abbreviation ("e.g.", "Dr.") stands before it.
_SENTENCES = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?])\s+")


def shuffled_sentences(text: str, draw: random.Random) -> str:
    """The sentences of `text` in a drawn order, joined by spaces (spec alta §6)."""
    sentences = [sentence for sentence in _SENTENCES.split(text) if sentence.strip()]
    draw.shuffle(sentences)
    return " ".join(sentences)


class ReportReader:
    """Study → the ids of its report with the text model's special tokens. Stands where a `Tokeniser` stands; there is no prompt.

    Training hides `share` of the ordinary tokens and, with `shuffle`, reads the sentences in another order, both seeded by the
    draw of (seed, epoch, study); evaluation reads the report as it is and hides by a draw that never changes.
    """

    reads_study = False
    reads_prior = False

    def __init__(
        self, tokenizer: Any, *, section: str, cleaning: str, max_report_tokens: int, shuffle: bool, share: float
    ) -> None:
        self._tokenizer, self._section, self._clean = tokenizer, section, CLEANINGS[cleaning]
        self._most, self._shuffle, self._share = max_report_tokens, shuffle, share
        self._draw: int | None = None
        self._training = False

    def drawn(self, draw: int, *, training: bool) -> ReportReader:
        """What reads one study whose random choices `draw` seeds."""
        reader = copy.copy(self)
        reader._draw, reader._training = draw, training
        return reader

    def clean(self, study: Study) -> str:
        """The cleaned text of the recipe's section."""
        return self._clean(section_text(study.sections, self._section))

    def prompt_ids(self, study: Study, prior: Study | None = None) -> tuple[list[int], list[int]]:
        """Nothing: there is no prompt."""
        return [], []

    def blank_prompt(self) -> tuple[list[int], list[int]]:
        """Nothing: there is no prompt."""
        return [], []

    def __call__(self, study: Study, prior: Study | None = None) -> Tokens:
        """Ids of the report, cut at `max_report_tokens` before the last special token, and which are hidden."""
        text, draw = self.clean(study), random.Random(self._draw)
        if self._training and self._shuffle:
            text = shuffled_sentences(text, draw)
        ids, truncated = self.encode(text)
        hidden = tuple(0 < place < len(ids) - 1 and draw.random() < self._share for place in range(len(ids)))
        return Tokens([], [], ids, truncated, () if self._draw is None else hidden)

    def encode(self, text: str, most: int | None = None) -> tuple[list[int], bool]:
        """([CLS] … [SEP], whether the end was cut at `most` tokens, the reader's own number if None)."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        room = (most or self._most) - 2
        return [self._tokenizer.cls_token_id, *ids[:room], self._tokenizer.sep_token_id], len(ids) > room
