"""Settings of beam search and sampling: what is refused, what reaches the library."""

import pytest

from rrg.config.schema import typed
from rrg.errors import UserError
from rrg.language.decoding import Decoding


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"num_beams": 0}, "num_beams: 0 is below 1"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens 5 and max_new_tokens 4"),
        ({"min_new_tokens": -1}, "min_new_tokens: -1 is below 0"),
        ({"min_new_tokens": 0, "max_new_tokens": 0}, "max_new_tokens: 0 is below 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "top_p": 0.0}, "top_p"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        typed(Decoding, settings, "generate")
    assert str(caught.value).startswith("generate")


def test_only_what_the_search_reads_is_passed_on():
    Decoding().check("generate")
    greedy, beams = Decoding(num_beams=1).arguments(), Decoding(num_beams=3).arguments()
    assert "length_penalty" not in greedy and beams["length_penalty"] == 2.0
    assert not {"temperature", "top_p"} & beams.keys()
    sampled = Decoding(num_beams=1, do_sample=True, temperature=0.7, top_p=0.9).arguments()
    assert (sampled["temperature"], sampled["top_p"]) == (0.7, 0.9)
