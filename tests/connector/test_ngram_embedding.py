"""The frozen table of n-gram embeddings in both readings; checkpoints do not carry it."""

import pytest
import torch

from rrg.batching.tokenise import encode
from rrg.connector.ngram_embedding import NgramEmbedding, ngram_table
from rrg.errors import UserError
from rrg.train.checkpoint import frozen_digest, trainable_tensors
from tests.connector.cmeaa_parts import NGRAMS, H, batch, connector, facts, language, shake


def pieces(ngram):
    return torch.tensor(encode(language().tokenizer, ngram))


def test_embedding_is_the_mean_of_the_pieces():
    table = ngram_table(facts(), "embedding")
    assert table.shape == (len(NGRAMS) + 1, H) and table.dtype == torch.float32 and not table.requires_grad
    torch.testing.assert_close(table[-1], language().embedding.weight[language().tokenizer.eos_token_id])
    for row, ngram in zip(table[:-1], NGRAMS, strict=True):
        assert language().tokenizer.bos_token_id not in pieces(ngram)
        torch.testing.assert_close(row, language().embedding.weight[pieces(ngram)].mean(0))


def test_hidden_is_the_mean_of_the_last_hidden_states():
    spoken = language()
    spoken.train()
    before = {name: module.training for name, module in spoken.named_modules()}
    table = ngram_table(facts(), "hidden")
    assert {name: module.training for name, module in spoken.named_modules()} == before
    decoder = spoken.model.get_decoder().eval()
    begin = torch.tensor([spoken.tokenizer.bos_token_id])
    for row, ngram in zip(table[:-1], NGRAMS, strict=True):
        hidden = decoder(input_ids=torch.cat([begin, pieces(ngram)])[None]).last_hidden_state[0]
        torch.testing.assert_close(row, hidden[1:].mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(table, ngram_table(facts(), "embedding"), atol=1e-2)


def test_more_ngrams_of_a_length_than_run_together():
    many = tuple(f"{first} {second}" for first in ("heart", "lungs", "right") for second in ["size"] * 50)
    table = ngram_table(facts(ngrams=many), "hidden")
    torch.testing.assert_close(table[:50], table[:1].expand(50, -1))
    assert not torch.allclose(table[0], table[50])


def test_the_connector_takes_the_reading_it_is_told():
    made = batch([[0, 1], [2]])
    one, two = connector(), connector(ngram_reading="hidden")
    assert torch.equal(one.ngrams.table, ngram_table(facts(), "embedding"))
    assert torch.equal(two.ngrams.table, ngram_table(facts(), "hidden"))
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(one(made.features, made).embeds, two(made.features, made).embeds, atol=1e-4)


def test_neither_state_nor_checkpoint_has_the_table():
    built = connector()
    assert not any("table" in name for name in built.state_dict())
    assert "ngrams.table" in dict(built.named_buffers())
    holder = torch.nn.ModuleDict({"connector": built})
    held = trainable_tensors(holder)
    assert set(held) == {f"connector.{name}" for name, _ in built.named_parameters()}
    digest = frozen_digest(holder)
    shake(built)
    assert frozen_digest(holder) == digest, "everything of the connector that changes is in the checkpoint"


def test_lookup_reads_no_padding():
    lookup = NgramEmbedding(torch.arange(6.0).reshape(3, 2))
    ids, mask = torch.tensor([[1, 99], [-7, 0], [98, 97]]), torch.tensor([[True, False], [False, True], [False, False]])
    rows, shown = lookup(ids, mask)
    assert rows.tolist() == [[2.0, 3.0], [0.0, 1.0], [4.0, 5.0]], "the last row is of a study that has none"
    assert shown.tolist() == [[True, False], [False, True], [True, False]] and not mask[2].any()
    rows, shown = lookup(ids[:, :0], mask[:, :0])
    assert rows.tolist() == [[4.0, 5.0]] * 3 and shown.tolist() == [[True]] * 3


def test_on_the_meta_device_only_the_shape_is_right():
    for ngrams, rows in ((NGRAMS, len(NGRAMS) + 1), (None, 1)):
        table = ngram_table({"ngrams": ngrams, "language_width": 4096}, "hidden", meta=True)
        assert table.shape == (rows, 4096) and table.is_meta


def test_what_cannot_be_embedded_is_refused():
    with pytest.raises(UserError, match=r"observations\.ngrams: .* nothing of n-gram 1 \(' '\)"):
        ngram_table(facts(ngrams=("heart", " ")), "embedding")
    with pytest.raises(UserError, match=r"connector\.enhance: needs observations\.ngrams.*enhance: false"):
        ngram_table(facts(ngrams=None), "embedding")
