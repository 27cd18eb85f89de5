"""Small CmEAA connectors with a real tokenizer and language model, and batches with n-grams."""

import dataclasses
import functools

import torch

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.language.family import LANGUAGE

D, H, N = 12, 16, 5
NGRAMS = ("pleural effusion", "heart", "normal in size", "lungs are clear", "enlarged", "right", "focal consolidation")
TEXTS = [
    "the heart is normal in size and the lungs are clear",
    "right pleural effusion with focal consolidation , heart enlarged",
]
SMALL = {"kind": "cmeaa", "heads": 2, "adapter_hidden": 4, "code_width": 6}


@functools.cache
def language(width=H, **options):
    torch.manual_seed(3)
    plain = {"kind": "small_llama", "hidden_size": width, "layers": 2, "heads": 2, "intermediate_size": 24, "min_count": 1}
    typed = typed_part(LANGUAGE, {**plain, **options}, "language", "small_llama")
    return LANGUAGE.build(typed, context=BuildContext(train_texts=lambda: TEXTS)).requires_grad_(False)


def facts(width=D, out=H, ngrams=NGRAMS, **more):
    spoken = language(out)
    return {
        "vision_width": width,
        "language_width": out,
        "embedding_std": 0.02,
        "embed": spoken.embed,
        "language": spoken,
        "ngrams": ngrams,
        **more,
    }


def connector(width=D, out=H, ngrams=NGRAMS, more=None, **options):
    torch.manual_seed(0)
    typed = typed_part(CONNECTOR, {**SMALL, **options}, "connector", "linear")
    return CONNECTOR.build(typed, context=BuildContext(facts=facts(width, out, ngrams, **(more or {})))).eval()


def shake(module, seed=7, scale=0.2):
    """Every parameter moved, the zeros too: as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
            parameter += noise.to(parameter.dtype)
    return module


def batch(lists, views=None, width=D, days=None, dtype=torch.float32, tokens=N):
    """Studies whose n-grams are `lists` (None: of a recipe without n-grams), with random cached features."""
    items = []
    for place, count in enumerate(views or [1] * len(lists)):
        generator = torch.Generator().manual_seed(20 + place)
        stack = torch.randn(count, tokens, width, generator=generator, dtype=torch.float64).to(dtype)
        when = None if days is None else days[place]
        extra = {} if when is None else {"days": when, "kinds": (1,) * count}
        items.append(Item(str(place), Tokens([], [1], [2], False), features=stack, **extra))
    made = collate(items)
    if any(row is None for row in lists):
        return made
    K = max(map(len, lists))
    ids = torch.tensor([[*row, *[0] * (K - len(row))] for row in lists], dtype=torch.long).reshape(len(lists), K)
    mask = torch.arange(K)[None] < torch.tensor([len(row) for row in lists])[:, None]
    return dataclasses.replace(made, features=made.features.to(dtype), ngram_ids=ids, ngram_mask=mask)
