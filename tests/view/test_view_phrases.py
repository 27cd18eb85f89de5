"""Shared phrases: longest first, each word once, never over the end of a sentence, always escaped."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from rrg.view.phrases import highlight, shared, side_by_side, words

TEXT = st.lists(st.sampled_from(["the", "heart", "is", "normal", "lungs.", "No", "no", "clear", "-", "<b>", "&"]), max_size=25)


def phrases(reference: str, generated: str) -> list[str]:
    left = [match.group() for match in words(reference)]
    return [" ".join(left[tile.reference : tile.reference + tile.length]) for tile in shared(reference, generated)]


def test_longest_phrase_wins_and_order_of_sentences_does_not_matter():
    reference = "The heart is normal in size. The lungs are clear."
    generated = "the lungs are clear. The heart is normal in contour."
    assert phrases(reference, generated) == ["The heart is normal in", "The lungs are clear."]


def test_two_words_are_no_phrase():
    assert phrases("No pneumothorax seen.", "No pneumothorax.") == []


def test_phrases_do_not_run_over_a_sentence_end():
    assert phrases("Heart is normal. Lungs are clear.", "Heart is normal lungs are clear.") == [
        "Heart is normal.",
        "Lungs are clear.",
    ]
    assert phrases("one two. three four", "one two. three four") == []


def test_decimals_are_one_word():
    assert phrases("A 1.5 cm nodule", "a 1.5 cm nodule") == ["A 1.5 cm nodule"]


def test_repeated_phrase_is_matched_once_each():
    assert len(shared("no focal consolidation. no focal consolidation.", "no focal consolidation.")) == 1
    assert len(shared("a b c a b c", "a b c x a b c")) == 2


def test_a_run_that_is_partly_taken_gives_its_rest():
    tiles = shared("a b c d e f g h", "a b c d e x c d e f g h")
    assert [(tile.reference, tile.generated, tile.length) for tile in tiles] == [(2, 6, 6)]
    tiles = shared("a b c d e f g h", "a b c d e x d e f g h")
    assert [(tile.reference, tile.generated, tile.length) for tile in tiles] == [(0, 0, 5), (5, 8, 3)]


def test_same_number_on_both_sides():
    left, right = side_by_side("Lungs are clear. Heart size is normal.", "Heart size is normal. Lungs are clear.")
    assert str(left) == '<mark data-phrase="0">Lungs are clear.</mark> <mark data-phrase="1">Heart size is normal.</mark>'
    assert str(right) == '<mark data-phrase="1">Heart size is normal.</mark> <mark data-phrase="0">Lungs are clear.</mark>'


def test_text_is_escaped_inside_and_outside_of_marks():
    html = str(highlight('<script>alert("1")</script> & <b>x</b>', [(2, 1)]))
    assert html == '&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; <mark data-phrase="0">&lt;b&gt;x&lt;/b&gt;</mark>'


@given(TEXT, TEXT)
def test_tiles_are_common_disjoint_and_complete(left: list[str], right: list[str]):
    tiles = shared(" ".join(left), " ".join(right))
    plain = [[re.sub(r"^\W+|\W+$", "", word).lower() for word in text] for text in (left, right)]
    for side, name in enumerate(("reference", "generated")):
        used = [getattr(tile, name) + n for tile in tiles for n in range(tile.length)]
        assert len(used) == len(set(used))
        assert all(plain[side][place] for place in used)
    for tile in tiles:
        assert tile.length >= 3
        span = range(tile.length)
        assert [plain[0][tile.reference + n] for n in span] == [plain[1][tile.generated + n] for n in span]


@given(TEXT, TEXT)
def test_marks_leave_the_text_as_it_was(left: list[str], right: list[str]):
    import html

    for text, marked in zip((left, right), side_by_side(" ".join(left), " ".join(right)), strict=True):
        assert html.unescape(re.sub(r"</?mark[^>]*>", "", str(marked))) == " ".join(text)
