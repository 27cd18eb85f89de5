"""Random access to the studies of one split, by byte range."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rrg.data.study import OBSERVATIONS, SPLITS, Study
from rrg.errors import UserError, nearest
from rrg.shards.index import BLOCK, SECTIONS, UNSAID, Columns, Member, parse_columns, suffixes
from rrg.shards.manifest import Manifest, ShardEntry, index_name, one_line, read_manifest
from rrg.shards.reading import Reading, Traffic
from rrg.shards.storage import FileFacts, Storage, open_storage


@dataclass(frozen=True)
class Sample:
    """One study with the JPEG bytes of its films, one per `study.views`."""

    index: int
    study: Study
    images: tuple[bytes, ...]


class DamagedSample(Exception):  # noqa: N818 (it names the sample's state, as its users count it)
    """One sample cannot be read; the others can. Carries no report text. `unreadable`: its bytes could not even be had."""

    def __init__(self, study: str, shard: str, member: str, reason: str, unreadable: bool = False) -> None:
        super().__init__(study, shard, member, reason, unreadable)  # the arguments themselves, so that it survives pickling
        self.study, self.shard, self.member, self.reason, self.unreadable = study, shard, member, reason, unreadable

    def __str__(self) -> str:
        return f"study {self.study}: member {self.member} of {self.shard}: {self.reason}"


class ShardSet:
    """One split of a folder of shards; index i counts through the shards in the manifest's order.

    Opening reads the manifest and the indexes and compares the size of every tar. A set may be forked and pickled: descriptors
    and connections are opened where they are used.

    Args:
        root: a local folder, or a URL that is read as `reading` says.

    Raises:
        UserError: the folder, manifest, split, a shard or an index is missing, unreadable, empty, cut short, damaged or of
            another format.
    """

    def __init__(self, root: str | Path, split: str, reading: Reading | None = None) -> None:
        self.reading = reading
        self._storage: Storage = open_storage(root, reading)
        self.root, self.split = self._storage.root, split
        self.manifest: Manifest = read_manifest(self._storage)
        self._shards = _shards_of(self.manifest, split, self.root)
        self._storage.know({shard.name: FileFacts(shard.bytes, shard.sha256) for shard in self._shards})
        self._check_files()
        self.shard_sizes: tuple[int, ...] = tuple(shard.studies for shard in self._shards)
        self.ids: list[str] = []
        self.patients: list[str] = []
        self._fill(self._storage.together(self._columns, self._shards))
        self._positions: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """sha-256 over the hashes of this split's shards."""
        return self.manifest.digest(self.split)

    @property
    def traffic(self) -> Traffic:
        """What this process has read of the set so far, opening included."""
        return self._storage.tally.traffic()

    def words(self, section: str) -> np.ndarray:
        """int32 [N]: whitespace-separated words of a section of each study's raw text."""
        if section not in SECTIONS:
            raise UserError(f"section {section!r}: {nearest(section, SECTIONS)}")
        return self._words[:, SECTIONS.index(section)]

    def labels(self, index: int) -> dict[str, int]:
        """Observation labels of one study; what is not mentioned has no key."""
        return {name: value for name, value in zip(OBSERVATIONS, self._labels[index].tolist(), strict=True) if value != UNSAID}

    def index_of(self, study: str) -> int:
        """The index of a study by id. Raises KeyError."""
        if self._positions is None:
            self._positions = {name: index for index, name in enumerate(self.ids)}
        return self._positions[study]

    def shard_of(self, index: int) -> str:
        """The name of the shard that holds one study."""
        return self._shards[int(np.searchsorted(self._edges, index, side="right")) - 1].name

    def read(self, index: int) -> Sample:
        """A study and its films, in one range read. Raises DamagedSample; IndexError."""
        study, films = self._members(index, None)
        return Sample(index, study, films)

    def study(self, index: int) -> Study:
        """A study without its films. Raises DamagedSample; IndexError."""
        return self._members(index, 1)[0]

    def _members(self, index: int, most: int | None) -> tuple[Study, tuple[bytes, ...]]:
        if not 0 <= index < len(self.ids):
            raise IndexError(f"index {index} of a split of {len(self.ids)} studies")
        name = self.ids[index]
        shard = self.shard_of(index)
        first, last = int(self._firsts[index]), int(self._firsts[index + 1])
        places = [Member(*place) for place in self._places[first:last].tolist()][:most]
        names = [f"{name}.{suffix}" for suffix in suffixes(last - first - 1)][:most]
        try:
            return self._parse(self._contents(name, shard, names, places), name, shard, last - first - 1)
        except DamagedSample as damage:
            if damage.unreadable or not self._storage.rereads:
                raise
        return self._parse(self._contents(name, shard, names, places, again=True), name, shard, last - first - 1)

    def _contents(
        self, study: str, shard: str, names: Sequence[str], places: Sequence[Member], again: bool = False
    ) -> list[bytes]:
        """The members' data, in one range read."""
        start = places[0].offset - BLOCK
        block = self._block(study, shard, start, places[-1].offset + places[-1].size - start, again)
        return [_member_data(block, place, start, study, shard, member) for place, member in zip(places, names, strict=True)]

    def _block(self, study: str, shard: str, start: int, length: int, again: bool) -> bytes:
        where = f"shard file {self.root}/{shard}"
        try:
            return self._storage.read_range(shard, start, length, again)
        except FileNotFoundError:
            raise UserError(f"{where} is gone since it was opened: put it back") from None
        except PermissionError as error:
            raise UserError(f"{where}: {error.strerror}; mend its permissions or your credentials") from None
        except OSError as error:
            reason = f"cannot be read: {error.strerror or type(error).__name__}"
            raise DamagedSample(study, shard, f"{study}.json", reason, unreadable=True) from None

    def _parse(self, contents: Sequence[bytes], name: str, shard: str, views: int) -> tuple[Study, tuple[bytes, ...]]:
        json, *films = contents
        try:
            study = Study.from_json(json)
            if (study.id, study.split, len(study.views)) != (name, self.split, views):
                raise ValueError("another study's record")
        except (ValueError, UserError, RecursionError):
            raise DamagedSample(name, shard, f"{name}.json", "not this study's record") from None
        return study, tuple(films)

    def _check_files(self) -> None:
        """Every tar is there, in the manifest's size."""
        try:
            files = self._storage.sizes([shard.name for shard in self._shards])
        except OSError as error:
            raise UserError(f"the shards of {self.root} cannot be read: {error.strerror or type(error).__name__}") from None
        for shard in self._shards:
            if shard.name not in files:
                raise UserError(f"shard file {self.root}/{shard.name} is missing: copy it again or run 'rrg prepare' again")
            if files[shard.name] != shard.bytes:
                raise UserError(
                    f"shard file {self.root}/{shard.name} has {files[shard.name]} bytes, the manifest says {shard.bytes}: "
                    "copy it again or run 'rrg prepare' again"
                )

    def _columns(self, shard: ShardEntry) -> Columns:
        name = index_name(shard.name)
        try:
            data = self._storage.read(name, shard.index_sha256)
        except FileNotFoundError:
            raise UserError(f"shard file {self.root}/{name} is missing: copy it again or run 'rrg prepare' again") from None
        except OSError as error:
            raise UserError(f"index {self.root}/{name} cannot be read: {error.strerror or type(error).__name__}") from None
        try:
            if hashlib.sha256(data).hexdigest() != shard.index_sha256:
                raise ValueError("its hash differs from the manifest's")
            header, columns = parse_columns(data)
            said = (header.shard, header.sha256, header.studies, header.bytes)
            if said != (shard.name, shard.sha256, shard.studies, shard.bytes):
                raise ValueError("it belongs to another shard")
        except ValueError as error:
            raise UserError(
                f"index {self.root}/{name} is damaged ({one_line(error)}): copy it again or run 'rrg prepare' again"
            ) from None
        return columns

    def _fill(self, shards: Sequence[Columns]) -> None:
        """Join the shards' columns: about a hundred bytes per study, shared between forked processes."""
        known: dict[str, str] = {}
        self.ids = [name for shard in shards for name in shard.ids]
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
            raise UserError(f"{self.root}: study {twice} is in split {self.split!r} twice; prepare the shards again")
        self.patients = [known.setdefault(name, name) for shard in shards for name in shard.patients]
        self._edges = _edges(np.asarray(self.shard_sizes))
        self._firsts = _edges(np.concatenate([shard.members for shard in shards]))
        self._places = np.concatenate([shard.places for shard in shards])
        self._words = np.concatenate([shard.words for shard in shards])
        self._labels = np.concatenate([shard.labels for shard in shards])


def _edges(sizes: np.ndarray) -> np.ndarray:
    """int64 [n + 1]: where each of n runs begins, and the end."""
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def _shards_of(manifest: Manifest, split: str, root: str) -> tuple[ShardEntry, ...]:
    if split not in SPLITS:
        raise UserError(f"split {split!r}: {nearest(split, SPLITS)}")
    held = ", ".join(f"{name} ({entry.studies})" for name, entry in manifest.splits.items())
    if split not in manifest.splits:
        raise UserError(f"{root} has no split {split!r}; it holds {held}")
    if not manifest.splits[split].studies:
        raise UserError(f"split {split!r} of {root} is empty; it holds {held}")
    return manifest.of_split(split)


def _member_data(block: bytes, place: Member, start: int, study: str, shard: str, member: str) -> bytes:
    """A member's data, its name in the tar and its checksum compared with the index."""
    first = place.offset - start
    data = block[first : first + place.size]
    if len(data) != place.size:
        raise DamagedSample(study, shard, member, "the shard file ends before it")
    header = block[first - BLOCK : first]
    if not _as_written(header, member, place.size):
        _check_header(header, place, study, shard, member)
    if zlib.crc32(data) != place.crc32:
        raise DamagedSample(study, shard, member, "its checksum differs from the index")
    return data


def _as_written(header: bytes, member: str, size: int) -> bool:
    """Whether this is, field by field, the header that the writer gives a member: a plain file of that name and size under a
    right checksum. Far quicker than reading it with `tarfile`, which only a header that is not has to be."""
    return (
        len(header) == BLOCK
        and header.startswith(member.encode() + b"\0")
        and header[124:136] == b"%011o\0" % size
        and header[156:157] == tarfile.REGTYPE
        and not header[345:500].strip(b"\0")
        and header[148:156] == b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * ord(" "))
    )


def _check_header(header: bytes, place: Member, study: str, shard: str, member: str) -> None:
    """Raises DamagedSample unless it is a tar header of this member."""
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise DamagedSample(study, shard, member, "its tar header is damaged") from None
    # A longer name stands in an extended header before this one, which then holds its first 100 characters.
    if found.name != member[:100] or found.size != place.size:
        raise DamagedSample(study, shard, member, "the tar holds another member at its place")
