"""CheXbert: 14 observations of a report by BERT (Smit et al., EMNLP 2020, arXiv:2004.09167), from the published checkpoint.

The checkpoint is `{"model_state_dict": …}` saved from a `DataParallel` model: `module.bert.…` is a BERT,
`module.linear_heads.N` its 14 heads on the [CLS] vector, 13 of four classes (blank, positive, negative, uncertain) and No
Finding of two (blank, positive). The shape of the BERT is read from the tensors; attention heads are 64 wide, as in
BERT-base.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wire import Answer, Answers, Refused, Study, answered, existing, failed, serve

HEADS = 14
MOST_TOKENS = 512
HEAD_SIZE = 64


def start(settings: dict[str, Any]) -> Answers:
    """Load checkpoint and vocabulary. Raises Refused where they do not have the published layout."""
    import torch

    device = torch.device(settings.get("device") or "cpu")
    bert, heads = _load(existing(settings, "weights"), device)
    encode = _tokenizer(existing(settings, "vocab"), bert.config.vocab_size)
    most = min(MOST_TOKENS, bert.config.max_position_embeddings)

    def answers(batch: list[Study]) -> Iterator[Answer]:
        texts = [study[side] for study in batch for side in ("generated", "reference")]
        labels, vectors, cut = _read(texts, encode, bert, heads, most, device)
        for place, study in enumerate(batch):
            two = slice(2 * place, 2 * place + 2)
            similarity = torch.nn.functional.cosine_similarity(vectors[two][0].double(), vectors[two][1].double(), dim=0).item()
            if not abs(similarity) <= 1.0 + 1e-6:
                yield failed(study, "the model's output is not finite")
                continue
            generated, reference = labels[two]
            yield answered(
                study, {"generated": generated, "reference": reference, "similarity": similarity, "cut": sum(cut[two])}
            )

    return answers


def _read(
    texts: list[str], encode: Any, bert: Any, heads: Any, most: int, device: Any
) -> tuple[list[list[int]], Any, list[bool]]:
    """Classes [2 B, 14], [CLS] vectors [2 B, H], and which texts were cut after `most` tokens."""
    import torch

    rows = [encode(text) for text in texts]
    kept = [row if len(row) <= most else row[: most - 1] + row[-1:] for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in kept], batch_first=True).to(device)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(kept):
        mask[place, : len(row)] = 1
    with torch.inference_mode():
        x_bd = bert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        classes = torch.stack([head(x_bd).argmax(dim=1) for head in heads], dim=1)
    return classes.tolist(), x_bd.cpu(), [len(row) > most for row in rows]


def _tokenizer(path: str, size: int) -> Any:
    """A report's ids with [CLS] and [SEP], uncased WordPiece, white space collapsed as the published labeller does."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = Path(path, "vocab.txt") if Path(path).is_dir() else Path(path)
    if not vocabulary.is_file():
        raise Refused(f"{path}: has no vocab.txt")
    words = vocabulary.read_text(encoding="utf-8").split("\n")
    if words[0] != "[PAD]" or not {"[UNK]", "[CLS]", "[SEP]"} <= set(words):
        raise Refused(f"{vocabulary}: is no vocabulary of BERT ([PAD] first, [UNK], [CLS], [SEP])")
    pieces = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    first, last = pieces.token_to_id("[CLS]"), pieces.token_to_id("[SEP]")
    if pieces.get_vocab_size() > size:
        raise Refused(
            f"{vocabulary}: has {pieces.get_vocab_size()} words, the checkpoint {size}; name the one it was trained with"
        )

    def encode(text: str) -> list[int]:
        return [first, *pieces.encode(" ".join(text.split()), add_special_tokens=False).ids, last]

    return encode


def _load(path: str, device: Any) -> tuple[Any, Any]:
    """The encoder and its heads. Raises Refused: no such layout, tensors missing or left over."""
    import torch

    state = _state(path)
    bert = _encoder(path, state)
    heads = torch.nn.ModuleList(torch.nn.Linear(bert.config.hidden_size, 4 if place < HEADS - 1 else 2) for place in range(HEADS))
    model = torch.nn.ModuleDict({"bert": bert, "linear_heads": heads})
    wanted = set(model.state_dict())
    unknown, absent = sorted(set(state) - wanted), sorted(wanted - set(state))
    if unknown or absent:
        raise Refused(
            f"{path}: not a CheXbert checkpoint: lacks {absent[:3] or 'nothing'}, has {unknown[:3] or 'nothing'} besides"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise Refused(f"{path}: not a CheXbert checkpoint: tensors of other shapes") from None
    model.eval().to(device)
    return bert, heads


def _state(path: str) -> dict[str, Any]:
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, torch.serialization.pickle.UnpicklingError) as error:
        raise Refused(f"{path}: cannot be read as a checkpoint of tensors ({type(error).__name__})") from None
    state = saved.get("model_state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Refused(f"{path}: not a CheXbert checkpoint: has no 'model_state_dict' of tensors")
    plain = {(name[7:] if name.startswith("module.") else name): value for name, value in state.items()}
    return {name: value for name, value in plain.items() if not name.endswith("position_ids")}  # a buffer of older versions


def _encoder(path: str, state: dict[str, Any]) -> Any:
    from transformers import BertConfig, BertModel

    try:
        vocabulary, hidden = state["bert.embeddings.word_embeddings.weight"].shape
        positions = state["bert.embeddings.position_embeddings.weight"].shape[0]
        types = state["bert.embeddings.token_type_embeddings.weight"].shape[0]
        inner = state["bert.encoder.layer.0.intermediate.dense.weight"].shape[0]
    except (KeyError, ValueError):
        raise Refused(f"{path}: not a CheXbert checkpoint: has no 'bert.' encoder") from None
    layers = 1 + max(int(name.split(".")[3]) for name in state if name.startswith("bert.encoder.layer."))
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // HEAD_SIZE),
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
    )
    return BertModel(config)


if __name__ == "__main__":
    serve(start, ["torch", "transformers", "tokenizers"])
