"""One tiny run for every test of a room that looks into runs; nobody writes into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.tiny import tiny_arguments

from pressmark import stages
from pressmark.catalog.items import Catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.experiment import parse
from pressmark.insight.doctor import Patient, read_patient


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    experiment, _ = parse(tiny_arguments(place))
    stages.train_tokenizer(experiment)
    return experiment.run


@pytest.fixture(scope="session")
def patient(tiny_run: Path) -> Patient:
    return read_patient(tiny_run)


def with_catalog(patient: Patient, **columns: object) -> Patient:
    """The same run over another catalog: title=, brand= or category= in place of its own."""
    catalog: Catalog = replace(patient.catalog, **columns)  # type: ignore[arg-type]
    return replace(patient, catalog=catalog, taxonomy=build_taxonomy(catalog.category))


def titles(*texts: str) -> np.ndarray:
    return np.array(texts, object)
