"""What a run's config.yaml says of its catalog; the whole of it is `experiment`'s."""

from __future__ import annotations

from pathlib import Path

import yaml

from pressmark.catalog import embeddings, items


def read_run(run: Path) -> tuple[items.Columns, embeddings.Config]:
    """How a run reads items and embeds them, from its config.yaml.

    Raises:
        ValueError: If the file is missing, or another version of Pressmark wrote it.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {run} is no run folder.")
    try:
        written = yaml.safe_load(path.read_text("utf-8"))["experiment"]
        columns = {**written["data"]["columns"], "text": tuple(written["data"]["columns"]["text"])}
        vectors = {**written["vectors"], "columns": tuple(written["vectors"]["columns"])}
        return items.Columns(**columns), embeddings.Config(**vectors)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a configuration that this version of Pressmark wrote ({error}). Use the version that "
            "the file names, or prepare a new run."
        ) from error
