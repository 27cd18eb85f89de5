"""The table of versions that go together.

The ranges of single packages are those of this package's own metadata (`pip show rrg`); `PAIRS` holds what a range cannot say:
two packages that are each in range and do not work together. A pair is checked where both are installed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Training cannot start without these; other packages of the metadata are checked where they are there.
NEEDED = (
    *("torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors"),
    *("webdataset", "omegaconf", "numpy", "pillow"),
)


@dataclass(frozen=True)
class Pair:
    """With `package` in `versions`, `other` has to be in `range`; `why` ends the sentence."""

    package: str
    versions: str
    other: str
    range: str
    why: str


PAIRS = (
    Pair("torch", ">=2.13,<2.14", "triton", ">=3.7,<3.8", "PyTorch 2.13 compiles for the Triton it ships with"),
    Pair("torch", ">=2.14,<2.15", "triton", ">=3.8,<3.10", "PyTorch 2.14 compiles for the Triton it ships with"),
    Pair("torch", ">=2.13,<2.14", "torchvision", ">=0.28,<0.29", "another one breaks `import transformers`; rrg needs none"),
    Pair("transformers", ">=5", "tokenizers", ">=0.22", "transformers 5 reads tokenizer files an older one does not know"),
    Pair("transformers", ">=5", "peft", ">=0.21", "an older peft does not find the layers of transformers 5"),
)

Versions = Callable[[str], str | None]


@dataclass(frozen=True)
class Fit:
    """One package: the version found (None: missing), the range asked for, whether it fits, and what to do where it does not."""

    package: str
    version: str | None
    range: str
    advice: str

    @property
    def ok(self) -> bool:
        return not self.advice


def installed(package: str) -> str | None:
    """The version of a package here."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def ranges() -> dict[str, str]:
    """The range of every package that rrg's metadata names, extras included."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    for text in importlib.metadata.requires("rrg") or []:
        requirement = Requirement(text)
        found[requirement.name.lower()] = str(requirement.specifier)
    return found


def fits(asked: Mapping[str, str], version_of: Versions = installed) -> Iterator[Fit]:
    """Every needed package, every other one of `asked` that is there, then the pairs that do not go together."""
    for package in (*NEEDED, *sorted(set(asked) - set(NEEDED))):
        version, span = version_of(package), asked.get(package, "")
        if version is None:
            if package in NEEDED:
                yield Fit(package, None, span, f"pip install '{package}{span}'")
            continue
        yield Fit(package, version, span, "" if _within(version, span) else f"pip install '{package}{span}'")
    for pair in PAIRS:
        version, other = version_of(pair.package), version_of(pair.other)
        if version is None or other is None or not _within(version, pair.versions) or _within(other, pair.range):
            continue
        yield Fit(
            pair.other, other, pair.range, f"pip install '{pair.other}{pair.range}' beside {pair.package} {version}: {pair.why}"
        )


def _within(version: str, span: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(span).contains(version.split("+")[0], prereleases=True)
