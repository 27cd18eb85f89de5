"""The pieces of a prompt are looked up together: what a sharded table is gathered for, once for a micro-batch."""

import pytest
import torch

from rrg.batching.batch import Prefix
from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.language.family import LANGUAGE

TEXTS = ["the lungs are clear .", "the heart is large .", "small effusion on the left side ."]


@pytest.fixture
def language():
    torch.manual_seed(3)
    options = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16, "min_count": 1}
    options = typed_part(LANGUAGE, {"kind": "small_llama", **options}, "language", "small_llama")
    return LANGUAGE.build(options, context=BuildContext(train_texts=lambda: TEXTS)).eval()


def batch_of(language, *, before, after):
    rows = [language.tokenizer(text)["input_ids"] for text in TEXTS]
    tokens = [
        Tokens(before=row[:before], after=row[: after and after + i], report=row, truncated=False) for i, row in enumerate(rows)
    ]
    return collate([Item(str(i), each) for i, each in enumerate(tokens)])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (0, 1), (2, 0), (0, 0)])
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("report", [True, False])
def test_a_sequence_asks_the_table_once(language, before, after, start, report):
    if not start:
        language.tokenizer.bos_token = None
    batch, asked = batch_of(language, before=before, after=after), []
    prefix = Prefix(torch.randn(3, 5, language.width))
    language.embedding.register_forward_hook(lambda module, inputs, output: asked.append(inputs[0].shape))
    embeds, mask = language.sequence(prefix, batch, report=report)
    assert len(asked) == 1
    for row in range(3):
        pieces = [language.embedding.weight[1:2]] if start else []
        pieces.append(language.embedding(batch.before_ids[row][batch.before_mask[row]]))
        pieces.append(prefix.embeds[row])
        pieces.append(language.embedding(batch.after_ids[row][batch.after_mask[row]]))
        if report:
            pieces.append(language.embedding(batch.report_ids[row][batch.report_mask[row]]))
        assert torch.equal(embeds[row][mask[row]], torch.cat(pieces))
