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
    """A folder of links to the model's files, its configuration without `auto_map`. Raises Refused where there is none."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config.pop("auto_map", None)
    except (OSError, ValueError, AttributeError):
        raise Refused(f"{model}: has no config.json of a model") from None
    folder = Path(tempfile.mkdtemp(prefix="rrg-green-"))
    atexit.register(shutil.rmtree, folder, True)
    for path in model.iterdir():
        if path.suffix != ".py" and path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


if __name__ == "__main__":
    serve(start, ["radeval", "torch", "transformers", "datasets"])
