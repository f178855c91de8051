"""What a run's tokenizer stands at: its SIDs, their versions, and the catalog with what was appended.

A run's data/ is what its evaluation is about and is never touched; appended items stand behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark.catalog.items import Catalog, join_catalogs, read_catalog
from pressmark.sids.table import LISTED, Register, read_register
from pressmark.tokenizer.appended import Batch, read_batches
from pressmark.tokenizer.manifest import Version, read_manifest


@dataclass(frozen=True)
class Living:
    """A run's catalog as it stands today.

    Attributes:
        catalog: The run's own items (item_index as ever), then the appended ones in order of arrival: by
            version, within one by item_id.
        num_own: The run's own items.
        listed: (M,) bool: may be recommended; False for removed products.
        batches: Of the appended items.
    """

    catalog: Catalog
    num_own: int
    listed: np.ndarray
    batches: tuple[Batch, ...]

    @property
    def own(self) -> Catalog:
        """The run's own items."""
        return self.catalog.take(np.arange(self.num_own))

    @property
    def appended_vectors(self) -> np.ndarray:
        """(M - num_own, D) float32 content vectors of the appended items; there must be some."""
        return np.concatenate([batch.vectors for batch in self.batches])


def _living(own: Catalog, register: Register, batches: list[Batch]) -> Living:
    """Puts a living catalog together."""
    catalog = join_catalogs(own, *(batch.catalog for batch in batches))
    listed = set(register.item_id[register.status == LISTED])
    mask = np.array([one in listed for one in catalog.item_id], bool)
    return Living(catalog, len(own), mask, tuple(batches))


@dataclass(frozen=True)
class State:
    """What a run's tokenizer folder holds at one version.

    Attributes:
        run: The run folder.
        register: All SIDs ever given.
        versions: The manifest.
        living: The run's items and the appended ones.
    """

    run: Path
    register: Register
    versions: list[Version]
    living: Living

    @property
    def folder(self) -> Path:
        """The tokenizer folder."""
        return self.run / "tokenizer"


def read_state(run: Path) -> State:
    """Reads and checks a run's tokenizer folder.

    Raises:
        ValueError: If there is none, or its files do not belong together.
    """
    folder = run / "tokenizer"
    if not (folder / "sids.parquet").is_file():
        raise ValueError(f"{folder / 'sids.parquet'} is missing: {run} holds no trained tokenizer.")
    register = read_register(folder / "sids.parquet")
    versions = read_manifest(folder, register)
    own = read_catalog(run / "data" / "items.parquet")
    return State(run, register, versions, _living(own, register, read_batches(folder, register, versions)))


def read_living(run: Path) -> Living:
    """The living catalog of a run; its own catalog where nothing was tokenized, appended or removed yet.

    Raises:
        ValueError: If files of the run do not belong together.
    """
    path = run / "tokenizer" / "sids.parquet"
    if path.is_file() and read_register(path).table.version:
        return read_state(run).living
    own = read_catalog(run / "data" / "items.parquet")
    return Living(own, len(own), np.ones(len(own), bool), ())
