"""A run's products as they stand today: with those that were appended, without those that were removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.doctor import Patient
from pressmark.sids.table import read_sids
from pressmark.tokenizer.state import read_living


def as_of_today(run: str | Path, patient: Patient) -> Patient:
    """The patient with its listed products; as it came where nothing was appended or removed.

    Appended products are cold: nobody can have bought them in training. Of the split nothing but `cold` and
    `fitted_on` is of these products, so the doctor judges the patient as it came.

    Args:
        run: The run folder.
        patient: What `read_patient` found there.

    Raises:
        ValueError: If files of the run do not belong together.
    """
    living = read_living(Path(run))
    if len(living.catalog) == len(patient.catalog) and living.listed.all():
        return patient
    rows = np.flatnonzero(living.listed)
    catalog = living.catalog.take(rows)
    table = read_sids(Path(run) / "tokenizer" / "sids.parquet", living.catalog.item_id)
    num_later = len(living.catalog) - living.num_own
    cold, fitted_on = (
        np.append(own, np.full(num_later, later))[rows]
        for own, later in ((patient.split.cold, True), (patient.split.fitted_on, False))
    )
    return replace(
        patient,
        catalog=catalog,
        taxonomy=build_taxonomy(catalog.category),
        split=replace(patient.split, cold=cold, fitted_on=fitted_on),
        vectors=np.concatenate([patient.vectors, *(one.vectors for one in living.batches)])[rows],
        codes=np.concatenate([patient.codes, *(one.codes for one in living.batches)])[rows],
        table=replace(table, sids=table.sids[rows]),
    )
