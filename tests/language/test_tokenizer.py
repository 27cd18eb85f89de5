"""Small tokenizers made from the training reports, and how one is kept in a run directory."""

import multiprocessing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.tokenise import encode
from rrg.errors import UserError
from rrg.language.tokenizer import SPECIALS, kept_tokenizer, train_tokenizer

TEXTS = ["the heart is normal .", "the lungs are clear .", "no effusion . the heart is large ."]


def make(kind="word", texts=TEXTS, extra="{image} report :", min_count=1, vocabulary=300):
    return train_tokenizer(kind, texts, extra, min_count=min_count, vocabulary=vocabulary)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_equal_texts_give_equal_tokenizers_in_any_process_and_order(kind):
    assert make(kind)._tokenizer.to_str() == make(kind)._tokenizer.to_str()
    if kind == "word":
        assert make(kind)._tokenizer.to_str() == make(kind, TEXTS[::-1])._tokenizer.to_str()


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_special_symbols_have_fixed_ids(kind):
    made = make(kind, [*TEXTS, "</s> <s> <unk>"])
    assert [made.convert_tokens_to_ids(symbol) for symbol in SPECIALS] == [0, 1, 2, 3]
    assert (made.pad_token_id, made.bos_token_id, made.eos_token_id, made.unk_token_id) == (0, 1, 2, 3)
    assert len(made) == len(set(made.get_vocab().values())) == max(made.get_vocab().values()) + 1
    assert made.decode([1, *encode(made, "the heart"), 2], skip_special_tokens=True).strip() == "the heart"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["the", "heart", "is", "normal", ".", "lungs", "clear"]), min_size=1))
def test_known_words_come_back(words):
    made = make()
    assert made.decode(encode(made, " ".join(words))) == " ".join(words)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_byte_level_pieces_write_any_text(text):
    made = make("bpe")
    ids = made(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert made.decode(ids, clean_up_tokenization_spaces=False) == text


def test_rare_words_are_unknown_and_the_prompt_is_always_known():
    made = make(min_count=2)
    assert encode(made, "the effusion") == [made.convert_tokens_to_ids("the"), made.unk_token_id]
    assert made.unk_token_id not in encode(made, "report :")


def test_a_vocabulary_of_the_size_asked_for_and_an_unknown_kind():
    assert len(make("bpe", vocabulary=265)) == 265
    with pytest.raises(UserError, match="none of word, bpe"):
        make("char")


def _keep(folder, ready, results):
    import os

    def slowly():
        ready.wait()  # both have seen that there is none
        return make(extra=f"process{os.getpid()}")

    kept = kept_tokenizer(folder, slowly)
    results.put(sorted(kept.get_vocab()))


def test_of_two_processes_the_first_writer_wins_and_both_read_its_tokenizer(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(2), context.Queue()
    folder = tmp_path / "run" / "tokenizer"
    processes = [context.Process(target=_keep, args=(folder, ready, results)) for _ in range(2)]
    for process in processes:
        process.start()
    vocabularies = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join(900)
        assert process.exitcode == 0
    assert vocabularies[0] == vocabularies[1]
    assert [path.name for path in folder.parent.iterdir()] == ["tokenizer"]


def test_a_kept_tokenizer_is_not_made_again(tmp_path):
    first = kept_tokenizer(tmp_path / "tokenizer", make)
    again = kept_tokenizer(tmp_path / "tokenizer", lambda: pytest.fail("made again"))
    assert again._tokenizer.to_str() == first._tokenizer.to_str()
    assert again.eos_token_id == 2
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer.*damaged"):
        kept_tokenizer(tmp_path / "tokenizer", make)
