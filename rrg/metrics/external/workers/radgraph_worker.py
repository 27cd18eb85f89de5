"""RadGraph: entities and relations of a report (Jain et al. 2021, arXiv:2106.14463), parsed by the `radgraph` package.

The model is the published archive (`config.json`, `vocabulary/`, `weights.th`) as a folder or `.tar.gz`. Its `config.json`
names the encoder on a model hub; here the encoder's folder is given, so that nothing is fetched. The package only parses:
what is compared, and how, is rrg's own.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from wire import Answers, Refused, Study, existing, one_by_one, serve

CONTENTS = ("config.json", "vocabulary", "weights.th")


def start(settings: dict[str, Any]) -> Answers:
    """Load the model. Raises Refused where the archive does not have the published layout."""
    kind = settings["kind"]
    home = tempfile.mkdtemp(prefix="rrg-radgraph-")
    atexit.register(shutil.rmtree, home, True)
    folder = Path(home, kind)
    _lay_out(Path(existing(settings, "model")), existing(settings, "encoder"), folder)
    from radgraph import RadGraph

    device = settings.get("device") or "cpu"
    cuda = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
    try:
        parser = RadGraph(model_type=kind, model_cache_dir=home, cuda=cuda)
    except (RuntimeError, KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        raise Refused(f"the package cannot load the model ({type(error).__name__}): is it an archive of {kind!r}?") from None

    def parse(study: Study) -> dict[str, Any]:
        return {side: _graph(parser, study[side]) for side in ("generated", "reference")}

    return one_by_one(parse)


def _graph(parser: Any, text: str) -> list[list[Any]]:
    """Entities as [tokens, label, [[relation, place of its object], …]]; a text without words has none."""
    if not text.split():
        return []
    found = parser([text])
    if "0" not in found:  # the package prints and goes on
        raise Refused("the package could not parse the report")
    entities = found["0"]["entities"]
    places = {key: place for place, key in enumerate(entities)}
    return [
        [entity["tokens"], entity["label"], [[relation, places[target]] for relation, target in entity["relations"]]]
        for entity in entities.values()
    ]


def _lay_out(model: Path, encoder: str, folder: Path) -> None:
    """The model's files as the package looks for them, with the encoder's folder in place of its name."""
    source = model
    if not model.is_dir():
        source = folder.with_name("archive")
        _unpack(model, source)
    lacking = [name for name in CONTENTS if not (source / name).exists()]
    if lacking:
        raise Refused(f"{model}: has no {', '.join(lacking)}; RadGraph's archive holds {', '.join(CONTENTS)}")
    folder.mkdir()
    for name in CONTENTS[1:]:
        (folder / name).symlink_to((source / name).resolve())
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config["dataset_reader"]["token_indexers"]["bert"]["model_name"] = encoder
        config["model"]["embedder"]["token_embedders"]["bert"]["model_name"] = encoder
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{model}: its config.json is not RadGraph's") from None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _unpack(archive: Path, folder: Path) -> None:
    """Plain files and folders below `folder` only."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                parts = member.name.split("/")
                if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                    raise Refused(f"{archive}: holds a name or a link that leads out of it")
                tar.extract(member, folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Refused(f"{archive}: cannot be unpacked ({type(error).__name__})") from None


if __name__ == "__main__":
    serve(start, ["radgraph", "torch", "transformers", "nltk"])
