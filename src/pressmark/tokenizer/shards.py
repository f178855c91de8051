"""Codes of a catalog too large for memory: a folder of vector shards in, a folder of code shards out.

    vectors/part-000.npy   (n, D) float16 or float32, read as a memory map
    codes/part-000.npy     (n, L), the same row for the same item, in the smallest whole-number type

Memory is that of a chunk, whatever the number of items. The codes are the nearest ones; items that share all
of them are not told apart here, since that takes the whole catalog at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from pressmark import files
from pressmark.sids.codebooks import codebook_fingerprint
from pressmark.tokenizer.quantizer import Quantizer


def encode_shards(quantizer: Quantizer, vectors: Path, codes: Path) -> int:
    """Encodes every .npy file of a folder; a call that was cut short goes on where it stopped.

    Args:
        quantizer: A trained quantizer of L levels, input width D.
        vectors: Folder of .npy files, each (n, D) float16 or float32.
        codes: Folder for as many files of the same names, each (n, L) uint8, or uint16 with more than 256 codes
            a level. quantizer.json beside them says whose codes they are.

    Returns:
        Number of items.

    Raises:
        ValueError: If there is no shard, one is not such an array or holds a row that is not finite, or
            `codes` holds codes of another quantizer or of another shard.
    """
    shards = sorted(Path(vectors).glob("*.npy"))
    if not shards:
        raise ValueError(f"{vectors}: no .npy file in it. Give the folder that holds the vector shards.")
    _claim(quantizer, Path(codes))
    total = 0
    for shard in tqdm(shards, desc="encode", unit="shard"):
        rows = _open(shard)
        place = Path(codes) / shard.name
        if place.exists():
            _check_done(place, len(rows), shard)
        else:
            try:
                found = quantizer.encode(rows)
            except ValueError as error:
                raise ValueError(f"{shard}: {error} (item_index counts the rows of this shard.)") from error
            with files.replacing(place) as partial, partial.open("wb") as file:
                np.save(file, found.astype(np.min_scalar_type(max(quantizer.level_sizes) - 1)))
        total += len(rows)
    return total


def _claim(quantizer: Quantizer, codes: Path) -> None:
    """Writes down whose codes the folder holds, or checks it.

    The codes of two known vectors are part of the mark: encoders differ where codebooks do not.
    """
    probe = np.stack([np.ones(quantizer.input_dim), np.eye(quantizer.input_dim)[0]]).astype(np.float32)
    mark = {
        "codebook_fingerprint": codebook_fingerprint(quantizer.codebooks()),
        "latents_fingerprint": files.fingerprint(quantizer.latents(probe)),
    }
    place = codes / "quantizer.json"
    if not place.exists():
        files.write_json(place, mark)
    elif files.read_json(place) != mark:
        raise ValueError(f"{codes} holds codes of another tokenizer. Give another folder, or delete this one.")


def _open(shard: Path) -> np.ndarray:
    try:
        rows = np.load(shard, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{shard}: not a plain array of numbers ({error}).") from error
    if rows.dtype.kind != "f":
        raise ValueError(f"{shard}: holds {rows.dtype}; save the vectors as float16 or float32.")
    return rows


def _check_done(place: Path, num_rows: int, shard: Path) -> None:
    found = len(np.load(place, mmap_mode="r", allow_pickle=False))
    if found != num_rows:
        raise ValueError(f"{place} holds the codes of {found} items, {shard} {num_rows}. Delete {place}.")
