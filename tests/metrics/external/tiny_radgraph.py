"""Writes a tiny random RadGraph in the published layout: MODEL/ (config.json, vocabulary/, weights.th) for an encoder's folder.

Run under an interpreter that has the package: `python tiny_radgraph.py MODEL ENCODER KIND`.
"""

import json
import sys
from pathlib import Path

LABELS = {
    "ner_labels": ["", "Anatomy::definitely present", "Observation::definitely present", "Observation::definitely absent"],
    "relation_labels": ["modify", "located_at", "suggestive_of"],
}


def config() -> dict:
    """The keys that the package reads, sizes made small; the encoder is named as on a model hub."""
    bert = {"type": "pretrained_transformer_mismatched", "model_name": "microsoft/no-such-encoder", "max_length": 512}
    events = {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.8, "loss_weights": {"trigger": 1.0, "arguments": 1.0}}
    return {
        "dataset_reader": {"type": "dygie", "max_span_width": 4, "token_indexers": {"bert": bert}},
        "model": {
            "type": "dygie",
            "embedder": {"token_embedders": {"bert": bert}},
            "initializer": {},
            "module_initializer": {},
            "feature_size": 6,
            "max_span_width": 4,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 1, "hidden_dims": 12, "dropout": 0.4},
            "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
            "modules": {
                "ner": {},
                "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
                "relation": {"spans_per_word": 0.5},
                "events": events,
            },
        },
    }


def write(folder: Path, encoder: str, kind: str) -> None:
    """The model's folder."""
    import torch
    from dotmap import DotMap
    from radgraph.allennlp.common.params import Params
    from radgraph.allennlp.data import Vocabulary
    from radgraph.allennlp.modules import text_field_embedders, token_embedders
    from radgraph.dygie.models import dygie

    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(parents=True)
    (vocabulary / "non_padded_namespaces.txt").write_text("*tags\n*labels\n")
    for name, labels in LABELS.items():
        (vocabulary / f"{kind}__{name}.txt").write_text("\n".join(labels))
    (folder / "config.json").write_text(json.dumps(config()))

    torch.manual_seed(3)
    settings = DotMap(config())
    for name in ("type", "embedder", "initializer", "module_initializer"):
        del settings.model[name]
    embedder = token_embedders.PretrainedTransformerMismatchedEmbedder(model_name=encoder, max_length=512)
    words = Vocabulary.from_files(str(vocabulary), Params({}).get("padding_token"), Params({}).get("oov_token"))
    model = dygie.DyGIE(words, text_field_embedders.BasicTextFieldEmbedder({"bert": embedder}), **settings.model)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "scorer" in name or "feedforward" in name:
                value.normal_(std=0.6)
    torch.save(model.state_dict(), folder / "weights.th")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
