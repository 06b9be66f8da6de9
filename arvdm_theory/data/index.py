"""The index of a data set: every clip looked at once, what it is, and why it is not used if it is not.

The index is one file. Clips whose size and modification time have not changed since are not looked at again; an
interrupted run keeps what it has. What a clip is called elsewhere is the digest of its files: a data set may be
moved and copied. What is found damaged later, when pixels are read, is added to a file beside it,
a line a clip, by whichever process finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.formats import ClipFormat, Header
from arvdm_theory.files import read_json, write_json

__all__ = ["Entry", "Index", "Skipped", "build_index"]

# Raised when what an index holds, or what makes a clip a good one, changes.
_VERSION = 2


@dataclass(frozen=True)
class Entry:
    """A clip that can be used.

    Attributes:
        path: below the root of the data set.
        header: its length and size.
        digest: of the content of its files; another digest is another clip.
    """

    path: str
    header: Header
    digest: str


@dataclass(frozen=True)
class Skipped:
    """A clip that cannot be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Index:
    """The clips of a data set.

    Attributes:
        root: folder of the data set.
        format: how its files are read.
        file: where the index is kept.
        entries: the clips that can be used, in the order of their paths.
        skipped: the others.
    """

    root: Path
    format: ClipFormat
    file: Path
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]

    @property
    def damaged_file(self) -> Path:
        """Where clips are listed whose damage showed only when they were read."""
        return self.file.with_suffix(".damaged.jsonl")

    def add_damaged(self, entry: Entry, reason: str) -> None:
        """Remembers that a clip's pixels could not be read; safe from several processes at once."""
        if (entry.path, entry.digest) in _damaged(self.damaged_file):
            return
        line = json.dumps({"path": entry.path, "digest": entry.digest, "reason": reason})
        with self.damaged_file.open("a", encoding="utf-8") as file:  # one short write: appended as a whole
            file.write(line + "\n")

    def all_skipped(self) -> tuple[Skipped, ...]:
        """The clips that cannot be used; those found damaged since the index was built are included."""
        used = {(entry.path, entry.digest) for entry in self.entries}
        late = (Skipped(key[0], reason) for key, reason in _damaged(self.damaged_file).items() if key in used)
        return (*self.skipped, *late)


def build_index(
    root: str | Path, format: ClipFormat, cache: str | Path | None = None, progress: bool = True
) -> Index:
    """Looks at every clip of a data set, or at those alone that are new or changed since the last time.

    Args:
        root: folder of the data set.
        format: of its files, e.g. ``TecoDmlab("train")``.
        cache: folder for the index file, made if need be (default: the root).
        progress: whether to show a progress bar.

    Raises:
        ClipError: if there is no clip, or none that can be used.
        OSError: if the index cannot be written.
    """
    root = Path(root)
    if not root.is_dir():
        raise ClipError(f"{root}: no such folder")
    paths = sorted(path for path in root.glob(format.pattern) if not path.name.startswith("."))
    if not paths:
        raise ClipError(f"{root}: no {format.name} clips, files {format.pattern}, in this folder")
    folder = root if cache is None else Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    split = "".join(letter if letter.isalnum() else "-" for letter in f"{format.name} {format.pattern}").lower()
    file = folder / f"index-{'-'.join(filter(None, split.split('-')))}.json"
    identity = {"version": _VERSION, "format": repr(format)}
    known = _load(file, identity)
    found: dict[str, dict[str, Any]] = {}
    try:
        for path in tqdm(paths, f"indexing {format.name}", disable=not progress or None, leave=False):
            name = path.relative_to(root).as_posix()
            stamp = _stamp(path, *format.companions(path))
            old = known.get(name)
            found[name] = old if old is not None and old["stamp"] == stamp else _look(path, format, stamp)
    finally:
        if found != known:
            write_json(file, {**identity, "clips": {**known, **found} if len(found) < len(paths) else found})
    return _index(root, format, file, found)


def _index(root: Path, format: ClipFormat, file: Path, found: Mapping[str, Mapping[str, Any]]) -> Index:
    damaged = _damaged(file.with_suffix(".damaged.jsonl"))
    entries, skipped = [], []
    for name, clip in found.items():
        reason = clip["reason"] or damaged.get((name, clip["digest"]))
        if reason is None:
            entries.append(Entry(name, Header(**clip["header"]), clip["digest"]))
        else:
            skipped.append(Skipped(name, reason))
    if not entries:
        raise ClipError(
            f"{root}: none of {len(skipped)} {format.name} clips can be used; the first, {skipped[0].path}: "
            f"{skipped[0].reason}"
        )
    return Index(root, format, file, tuple(entries), tuple(skipped))


def _look(path: Path, format: ClipFormat, stamp: list[int]) -> dict[str, Any]:
    try:
        header = asdict(format.inspect(path))
        return {
            "stamp": stamp,
            "header": header,
            "digest": _digest(path, *format.companions(path)),
            "reason": None,
        }
    except (ClipError, OSError) as error:
        return {"stamp": stamp, "header": None, "digest": None, "reason": str(error)}


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _stamp(*paths: Path) -> list[int]:
    def numbers() -> Iterator[int]:
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                yield from (-1, -1)
            else:
                yield from (status.st_size, status.st_mtime_ns)

    return list(numbers())


def _load(file: Path, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The clips of an index written earlier for the same data set; none where it cannot be read."""
    try:
        content = read_json(file)
        if {key: content[key] for key in identity} != identity:
            return {}
        clips: dict[str, dict[str, Any]] = content["clips"]
        whole = all({"stamp", "header", "digest", "reason"} <= clip.keys() for clip in clips.values())
        return clips if whole else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _damaged(file: Path) -> dict[tuple[str, str], str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            clip = json.loads(line)
            found[clip["path"], clip["digest"]] = clip["reason"]
        except (ValueError, KeyError, TypeError):  # torn by a crash: the next reader of the clip notes it again
            continue
    return found
