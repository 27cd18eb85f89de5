"""Data flows one way: a package imports only from packages upstream of it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Upstream first. A name is a package or a top-level module of rrg.
ORDER = [
    "errors",
    "digest",
    "config",
    "data",
    "shards",
    "observations",
    "batching",
    "vision",
    "connector",
    "language",
    "objectives",
    "recipe",
    "stages",
    "towers",
    "model",
    "system",
    "strategy",
    "metrics",
    "generate",
    "train",
    "view",
    "export",
    "plan",
    "bench",
    "preflight",
    "sweep",
    "cli",
]
# `prepare` writes shards: it is the one door from data to what comes after it. Recipes check their stages, which are recipes.
ALLOWED = {("data.prepare", "shards"), ("recipe", "stages")}


def imports(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # types only
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def place(module):
    return module.split(".")[1]


def test_packages_import_only_from_upstream():
    wrong = []
    for path in sorted((ROOT / "rrg").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module == "rrg.__init__":
            continue
        own = place(module)
        for other in imports(path):
            if not other.startswith("rrg.") or place(other) == own:
                continue
            if any(module.startswith(f"rrg.{a}") and other.startswith(f"rrg.{b}") for a, b in ALLOWED):
                continue
            if ORDER.index(place(other)) > ORDER.index(own):
                wrong.append(f"{module} imports {other}")
    assert not wrong, wrong


def test_kernels_are_a_leaf_and_nothing_imports_the_launcher():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] in ("rrg", "launcher")], path
    for path in (ROOT / "rrg").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "launcher"], path


def test_reading_a_recipe_imports_no_torch():
    import subprocess
    import sys

    code = "import sys; from rrg.recipe import load_recipe; load_recipe('r2gengpt_iu'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_pickle_no_unsafe_load_anywhere():
    for folder in ("rrg", "launcher", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not {"pickle", "dill", "cloudpickle", "joblib", "timm", "torchvision"} & {
                name.split(".")[0] for name in imports(path)
            }, path
            text = path.read_text()
            assert "torch.load(" not in text or "weights_only=True" in text, path
            assert "pipe:" not in text or path.name in ("reader.py", "storage.py"), path
