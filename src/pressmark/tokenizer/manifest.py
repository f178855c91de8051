"""The manifest of a tokenizer folder: what every version of its SIDs changed, when, and the fingerprints.

`sids.parquet` decides which version a folder has; it is written last. An entry of a later version is the rest
of a command that was killed, and counts for nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pressmark import files
from pressmark.sids.table import LISTED, Register, read_register


@dataclass(frozen=True)
class Version:
    """One entry.

    Attributes:
        version: 0 is training; counts up with each change.
        kind: What made it.
        date: When, UTC.
        num_items: Rows of the register, those of removed products too.
        num_listed: Rows that may be recommended.
        fingerprints: "codebooks"; "sids" of all rows; "items" and "vectors" of what this version added.
        counts: Such as appended, skipped, relocated, removed, freed.
        details: Drift figures and verdict of an append; the item ids of a removal.
    """

    version: int
    kind: Literal["train", "append", "remove"]
    date: str
    num_items: int
    num_listed: int
    fingerprints: dict[str, str]
    counts: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)


def entry(
    register: Register,
    kind: Literal["train", "append", "remove"],
    counts: dict[str, int],
    added: dict[str, str] | None = None,
    details: dict[str, Any] | None = None,
) -> Version:
    """The manifest entry of a register as it will be written.

    Args:
        register: With the new version number.
        kind: What made it.
        counts: What happened how often.
        added: Fingerprints of "items" and "vectors", where there are new ones.
        details: More.
    """
    return Version(
        version=register.table.version,
        kind=kind,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        num_items=len(register),
        num_listed=int((register.status == LISTED).sum()),
        fingerprints={
            "codebooks": register.table.codebook_fingerprint,
            "sids": register.fingerprint,
            **(added or {}),
        },
        counts=counts,
        details=details or {},
    )


def write_manifest(folder: Path, versions: list[Version]) -> None:
    """Writes manifest.json."""
    files.write_json(folder / "manifest.json", {"versions": [asdict(one) for one in versions]})


def read_manifest(folder: Path, register: Register) -> list[Version]:
    """The entries of all versions that `register` has, from 0 up.

    Of a folder that was trained before there were manifests, the first entry is made up from the register.

    Raises:
        ValueError: If entries are missing, or the register's rows are not those that the last one describes.
    """
    path = folder / "manifest.json"
    version = register.table.version
    if not path.is_file() and version == 0:
        return [entry(register, "train", {"items": len(register)})]
    found = files.read_json(path)["versions"] if path.is_file() else []
    versions = [Version(**one) for one in found if one["version"] <= version]
    if [one.version for one in versions] != list(range(version + 1)):
        raise ValueError(
            f"{path}: lacks versions of sids.parquet, which is at version {version}. "
            "Both files belong together: take them from one copy of the folder."
        )
    last = versions[-1].fingerprints
    now = {"codebooks": register.table.codebook_fingerprint, "sids": register.fingerprint}
    for name, value in now.items():
        if last[name] != value:
            raise ValueError(
                f"{folder / 'sids.parquet'}: the fingerprint of its {name} is {value}, but {path} says "
                f"{last[name]} of version {version}. Both files belong together: take them from one copy."
            )
    return versions


def refuse_to_replace(folder: Path) -> None:
    """Raises ValueError if training into `folder` would lose SIDs given after an earlier training."""
    path = folder / "sids.parquet"
    if path.is_file() and (version := read_register(path).table.version):
        raise ValueError(
            f"{folder}: its SIDs are at version {version}; training here would drop what was appended and "
            "removed since. Train in another --run_dir, or delete this folder to give them up."
        )
