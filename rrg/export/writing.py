"""Writing an export: built beside its place from the run's checkpoint and base models, synced, renamed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rrg.digest import digest_file, digest_tensors
from rrg.errors import UserError
from rrg.export import layout
from rrg.export.adapters import adapter_tensors, write_adapter
from rrg.export.card import Exported, card_text
from rrg.export.portable import portable_recipe
from rrg.recipe import Recipe
from rrg.system import System
from rrg.train import checkpoint
from rrg.train.rundir import RunDirectory, read_recipe

_NAMED_BY_LIBRARIES = ("_name_or_path", "name_or_path")  # where a copied model was loaded from


@dataclass(frozen=True)
class Request:
    """What is asked of an export.

    `published`: names of base models that lie in local folders, by part. `licence` is a Hugging Face id, empty where nobody has
    stated one. `shards`: where the run's shards lie now, "none" to go without, empty for where the recipe says. `force`
    replaces an export that is there.
    """

    which: str = "best"
    published: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    shards: str = ""
    force: bool = False


def write_export(run: Path, folder: Path, request: Request) -> Path:
    """The export of `run` at `folder`; returns it.

    Raises:
        UserError: no such run or checkpoint, a folder that is there, base models that changed, a path that cannot stay.
    """
    recipe = read_recipe(run)
    if recipe.vision.kind == "none":
        raise UserError(f"{run}: a text-only stage; its language model is a Hugging Face folder already: {run / 'language'}")
    if not recipe.writes:
        raise UserError(f"{run}: two towers, which write no reports; an export is of a report generator")
    _check_place(folder, run, request.force)
    data = portable_recipe(recipe, request.published)
    chosen = checkpoint.resolve(RunDirectory(run).checkpoints, request.which)
    state = checkpoint.read_state(chosen)
    system = System.build(recipe, run, None)
    _check_bases(chosen, state, system)
    checkpoint.load(chosen, system.model)
    with _appearing(folder, request.force) as part:
        _write_weights(part, recipe, system)
        _copy_artefacts(part, run, recipe, system)
        _write_decoding(part, system)
        config = _config(data, chosen, state, system)
        _write_json(part / layout.CONFIG, config)
        exported = Exported(run, recipe, config, request.licence, request.shards)
        (part / layout.CARD).write_text(card_text(exported), encoding="utf-8")
        _write_json(part / layout.DIGESTS, {"format": layout.FORMAT, "files": layout.files_of(part)})
        _check_private(part, run)
    return folder


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """Digest of what is not trained, by part of the model; parts without frozen tensors are left out.

    A trained tensor has every name it goes by: an output head that is tied to trained embeddings is trained.
    """
    tied = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    held = tied | checkpoint.trainable_tensors(model).keys()
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, tensor in model.state_dict().items():
        if name not in held:
            parts.setdefault(name.partition(".")[0], []).append((name, tensor))
    return {part: digest_tensors(tensors) for part, tensors in sorted(parts.items())}


def _check_place(folder: Path, run: Path, force: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not layout.is_export(folder):
        raise UserError(f"--out {folder}: is there and is no export, so it is not replaced; name another folder")
    if not force:
        raise UserError(f"--out {folder}: an export is there; name another folder, or replace it with --force")
    if run.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {folder}: holds the run itself; name another folder")


def _check_bases(folder: Path, state: checkpoint.State, system: System) -> None:
    frozen = checkpoint.frozen_digest(system.model)
    table = None if system.ngrams is None else system.ngrams.table.digest
    for what, held, now in (
        ("frozen model", state.frozen, frozen),
        ("n-gram table", state.inputs.get("observations.ngrams"), table),
    ):
        if held != now:
            raise UserError(
                f"checkpoint {folder}: trained with another {what} (digest {str(held)[:12]}, now {str(now)[:12]}): put the "
                "former one back"
            )


@contextmanager
def _appearing(folder: Path, force: bool) -> Iterator[Path]:
    """A folder that appears at `folder` whole or not at all. What killed writers of the same place left is removed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    for leftover in folder.parent.glob(f".{folder.name}.*.export"):
        shutil.rmtree(leftover)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.export")
    try:
        part.mkdir()
        yield part
        _sync(part)
        _replace(folder, part, force)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(folder: Path, part: Path, force: bool) -> None:
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former.export")
    if force and folder.exists():
        folder.rename(former)
    part.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    _sync_one(folder.parent)


def _write_weights(part: Path, recipe: Recipe, system: System) -> None:
    """Trained tensors once: of a language model trained whole in its own folder, of everything else in one file."""
    tensors = {name: t.contiguous().cpu() for name, t in checkpoint.trainable_tensors(system.model).items()}
    for name in layout.ADAPTERS:
        if adapter_tensors(tensors, name):
            write_adapter(part / layout.ADAPTERS[name], recipe, name, tensors)
    if recipe.language.train == "full":
        system.model.language.save_pretrained(part / layout.LANGUAGE)
        for name, tensor in language_tensors(part).items():
            if name in tensors and tensors[name].dtype == tensor.dtype and tensors[name].equal(tensor):
                del tensors[name]
    save_file(tensors, part / layout.WEIGHTS, {"format": "pt"})


def language_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of the language model in an export, by their names in ours; {} where it holds none."""
    files = sorted((folder / layout.LANGUAGE).glob("*.safetensors"))
    return {f"language.model.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def _copy_artefacts(part: Path, run: Path, recipe: Recipe, system: System) -> None:
    """What the run made and the recipe reads: tokenizer, the language model of a stage, n-gram table, a frozen connector."""
    if (run / layout.TOKENIZER).is_dir():
        shutil.copytree(run / layout.TOKENIZER, part / layout.TOKENIZER)
    name = getattr(recipe.language, "name", "")
    if name.startswith("stage:"):
        place = Path("stages", name.removeprefix("stage:"), "language")
        shutil.copytree(run / place, part / place)
    if system.ngrams is not None:
        shutil.copyfile(recipe.observations.ngrams, part / layout.NGRAMS)
    if getattr(recipe.connector, "weights", "") and getattr(recipe.connector, "train", "full") == "frozen":
        from rrg.connector.weights import save_connector

        save_connector(system.model.connector, part / layout.CONNECTOR)
    for path in part.rglob("*config.json"):
        _unname(path)


def _unname(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    if any(key in record for key in _NAMED_BY_LIBRARIES):
        _write_json(path, {key: value for key, value in record.items() if key not in _NAMED_BY_LIBRARIES})


def _write_decoding(part: Path, system: System) -> None:
    from transformers import GenerationConfig

    tokenizer = system.model.language.tokenizer
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": end if pad is None else pad}
    GenerationConfig(**system.recipe.generate.arguments(), **ids).save_pretrained(part)


def _config(data: dict[str, Any], chosen: Path, state: checkpoint.State, system: System) -> dict[str, Any]:
    return {
        "model_type": layout.MODEL_TYPE,
        "format": layout.FORMAT,
        "rrg_version": importlib.metadata.version("rrg"),
        "name": data["name"],
        "checkpoint": {
            "step": state.step,
            "sha256": digest_file(chosen / "trainable.safetensors"),
            "best": state.best.get("step") == state.step,
        },
        "bases": {name: data[name].get("name") or data[name]["kind"] for name in ("vision", "language")},
        "frozen": frozen_digests(system.model),
        "ngrams": None if system.ngrams is None else system.ngrams.table.digest,
        "train_shards": state.data,
        "recipe": data,
    }


def _check_private(part: Path, run: Path) -> None:
    """No file of text may name this machine. Raises UserError naming the file."""
    told = {str(run.resolve()), str(Path.cwd()), str(Path.home()), str(part.parent.resolve())}
    for path in (*part.rglob("*.json"), *part.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if any(len(place) > 1 and re.search(rf"(?<![\w/.:-]){re.escape(place)}[/\"]", text) for place in told):
            raise UserError(
                f"{path.relative_to(part)}: would name a folder of this machine; remove it from the run's file of that name"
            )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    paths: Iterable[Path] = (*folder.rglob("*"), folder)
    for path in paths:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
