"""What was appended to a run, batch by batch, on disk.

A batch is `appended/<version>/` in the tokenizer folder: items.parquet, and content.safetensors with vectors,
nearest codes and errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog.items import Catalog, read_catalog, write_catalog
from pressmark.sids.table import Register
from pressmark.tokenizer.manifest import Version


@dataclass(frozen=True)
class Batch:
    """The n items of one append.

    Attributes:
        catalog: The items, sorted by item_id.
        vectors: (n, D) float32.
        codes: (n, L) int64 nearest codes, before relocation.
        errors: (n,) float32 squared reconstruction error of those codes.
    """

    catalog: Catalog
    vectors: np.ndarray
    codes: np.ndarray
    errors: np.ndarray

    @property
    def fingerprints(self) -> dict[str, str]:
        """For the manifest."""
        return {"items": self.catalog.fingerprint, "vectors": files.fingerprint(self.vectors)}


def write_batch(folder: Path, version: int, batch: Batch) -> None:
    """Writes the batch of a version into a tokenizer folder; replaces what a killed command left there."""
    with files.replacing(_place(folder, version)) as partial:
        partial.mkdir()
        write_catalog(partial / "items.parquet", batch.catalog)
        tensors = {"vectors": batch.vectors, "codes": batch.codes, "errors": batch.errors}
        files.write_tensors(partial / "content.safetensors", tensors)


def read_batches(folder: Path, register: Register, versions: list[Version]) -> list[Batch]:
    """All batches in order of arrival.

    Raises:
        ValueError: If one is missing, or not the one that the manifest describes.
    """
    batches = []
    for version in np.unique(register.since[register.since > 0]).tolist():
        place = _place(folder, version)
        if not (place / "items.parquet").is_file() or not (place / "content.safetensors").is_file():
            raise ValueError(f"{place} is missing or not whole; sids.parquet has items of it. Restore it.")
        content = {name: one.numpy() for name, one in files.read_tensors(place / "content.safetensors").items()}
        batch = Batch(
            read_catalog(place / "items.parquet"), content["vectors"], content["codes"], content["errors"]
        )
        described = versions[version].fingerprints
        for name, value in batch.fingerprints.items():
            if described.get(name) != value:
                raise ValueError(
                    f"{place}: its {name} have the fingerprint {value}, manifest.json says "
                    f"{described.get(name)}. The files changed; restore them from a copy."
                )
        batches.append(batch)
    return batches


def _place(folder: Path, version: int) -> Path:
    return folder / "appended" / f"{version:05d}"
