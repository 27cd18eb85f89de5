"""GREEN by the package radeval (Ostmeier et al. 2024, arXiv:2405.03595): a language model lists errors and matched findings.

The package counts an answer that has not the asked form as 0; here such a study has failed. The published model folder names
code of its own to load (`auto_map`); it is not run: the folder's weights are loaded into the class of transformers that its
`model_type` names.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from wire import Answers, Refused, Study, existing, one_by_one, serve

MOST_WORDS = 300  # of a report; the package's prompt cuts there
CONFIGURATIONS = ("config.json", "tokenizer_config.json")
SECTIONS = ("[Clinically Significant Errors]:", "[Matched Findings]:")


def start(settings: dict[str, Any]) -> Answers:
    """Load the model. Raises Refused where the folder holds none."""
    model = _without_code(Path(existing(settings, "model")))
    from radeval.metrics.green_score.green import GREEN

    try:
        green = GREEN(str(model), cpu=not (settings.get("device") or "cpu").startswith("cuda"), num_gpus=1)
    except (AssertionError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise Refused(f"{settings['files']['model']}: the package cannot load it ({type(error).__name__})") from None

    def score(study: Study) -> dict[str, Any]:
        texts = [study["reference"], study["generated"]]
        _, _, values, _ = green([texts[0]], [texts[1]])
        if values[0] is None or not all(section in green.completions[0] for section in SECTIONS):
            raise Refused("the model's answer has not the asked form")
        return {"score": float(values[0]), "cut": sum(len(text.split()) > MOST_WORDS for text in texts)}

    return one_by_one(score)


def _without_code(model: Path) -> Path:
    """A folder of links to the model's files, its configurations without `auto_map`. Raises Refused where there are none."""
    if not (model / "config.json").is_file():
        raise Refused(f"{model}: has no config.json of a model")
    folder = Path(tempfile.mkdtemp(prefix="rrg-green-"))
    atexit.register(shutil.rmtree, folder, True)
    for path in model.iterdir():
        if path.name in CONFIGURATIONS:
            (folder / path.name).write_text(json.dumps(_plain(path)), encoding="utf-8")
        elif path.suffix != ".py":
            (folder / path.name).symlink_to(path.resolve())
    return folder


def _plain(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in config.items() if key != "auto_map"}
    except (OSError, ValueError, AttributeError):
        raise Refused(f"{path}: is no configuration of a model") from None


if __name__ == "__main__":
    serve(start, ["radeval", "torch", "transformers", "datasets"])
