"""Stage one: content vectors and a tree become a trained quantizer and a SID for every item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pressmark import files
from pressmark.catalog.embeddings import read_vectors
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.distributed import barrier, broadcast, rank, start
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split
from pressmark.sids.codebooks import codebook_fingerprint, write_codebooks
from pressmark.sids.table import SidTable, read_register, write_sids
from pressmark.tokenizer import collisions, drift, manifest, quality
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.given import read_given
from pressmark.tokenizer.pairs import pair_counts
from pressmark.tokenizer.quantizer import Quantizer
from pressmark.tokenizer.rqkmeans import RQKMeans, RQKMeansConfig
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig
from pressmark.tokenizer.task import RQVAETask
from pressmark.training import loop
from pressmark.training.config import decisive


def fit_quantizer(
    vectors: np.ndarray,
    taxonomy: Taxonomy,
    items: np.ndarray,
    config: Config,
    seed: int,
    folder: Path,
    histories: Histories | None = None,
    given: np.ndarray | None = None,
) -> tuple[Quantizer, dict[str, Any]]:
    """Trains a quantizer.

    Args:
        vectors: (N, D) float32 of the whole catalog.
        taxonomy: The tree of the same N items.
        items: (n,) int64: only these are read.
        config: The tokenizer's.
        seed: Of everything drawn at random.
        folder: For checkpoints and logs.
        histories: Training sequences of item_index; read where tokenizer.behaviour_weight is above 0.
        given: (N, L) int64 SIDs of all items, for the kind "given".

    Returns:
        The quantizer in eval mode, the same on every process, and the record of the training ({} for k-means).

    Raises:
        ValueError: If there are fewer items than codes in a level.
    """
    device = start().device
    if given is None:
        _check_items(len(items), config.level_sizes)
    torch.manual_seed(seed)
    fitted = vectors if len(items) == len(vectors) else vectors[items]
    if config.kind != "rqvae":
        model = RQKMeans(RQKMeansConfig(vectors.shape[1], config.level_sizes)).to(device)
        if rank() == 0:
            if given is None:
                model.fit(fitted, config.scaling, seed, config.kmeans_iterations, config.balance)
            else:
                model.fit_given(fitted, given[items], config.scaling)
        _broadcast_state(model)
        return model.eval(), {}
    shape = RQVAEConfig(vectors.shape[1], config.level_sizes, config.hidden_sizes, config.latent_dim)
    model = RQVAE(shape).to(device)
    if rank() == 0:
        model.start(fitted, config.scaling, seed, config.kmeans_iterations, config.balance)
    _broadcast_state(model)
    model.through = config.gradient
    model.books.requires_grad_(config.codebooks == "gradient")
    task = RQVAETask(vectors, taxonomy, items, config, seed, histories)
    behaviour = (histories.values, histories.offsets) if histories and config.behaviour_weight else ()
    settings = decisive(config)
    fingerprint = files.fingerprint(vectors, items, taxonomy.item_leaf, settings, seed, *behaviour)
    record = loop.fit(model, task, config.training, folder, seed, fingerprint)
    if rank() == 0:
        model.fix_scale(fitted)
        if config.polish_iterations:
            _polish(model, fitted, seed, config)
    _broadcast_state(model)
    return model.eval(), {**record, "pairs_in_a_batch": _pairs(task)}


def _polish(model: RQVAE, vectors: np.ndarray, seed: int, config: Config) -> None:
    # The levels that pairs were taught to agree on keep the borders that were found for them.
    agreed = config.agreement.num_levels if config.neighbour_weight else 0
    model.polish(vectors, seed, config.polish_iterations, config.balance, agreed)


def _check_items(num_items: int, level_sizes: tuple[int, ...]) -> None:
    if num_items < max(level_sizes):
        raise ValueError(
            f"tokenizer.level_sizes is {level_sizes}, but {num_items} training items cannot start "
            f"{max(level_sizes)} codes. Set it to at most {num_items} a level (a quarter of that is better)."
        )


def _broadcast_state(model: nn.Module) -> None:
    """Rank 0's parameters and buffers on every process."""
    for tensor in model.state_dict().values():
        tensor.copy_(broadcast(tensor))


def resolve(
    quantizer: Quantizer, vectors: np.ndarray, fitted_on: np.ndarray, how: str
) -> tuple[np.ndarray, collisions.Resolution]:
    """Nearest codes of (N, D) float32 vectors, and the SIDs made of them; see `collisions`.

    The items of `fitted_on` (N,) bool settle first. The others take what they leave, as products do that come
    later: were they settled together, a hidden item could change the SID that a generator learns.
    """
    latents, codebooks = quantizer.latents(vectors), quantizer.codebooks()
    codes = quantizer.encode(vectors)
    settle = getattr(collisions, how)
    old = settle(latents[fitted_on], codes[fitted_on], codebooks)
    new = settle(latents[~fitted_on], codes[~fitted_on], codebooks, old.sids)

    def merged(name: str) -> np.ndarray:
        one = getattr(old, name)
        both = np.empty((len(vectors), *one.shape[1:]), one.dtype)
        both[fitted_on], both[~fitted_on] = one, getattr(new, name)
        return both

    level_sizes = tuple(map(max, old.level_sizes, new.level_sizes))
    return codes, collisions.Resolution(merged("sids"), level_sizes, merged("moved"), merged("extra_distance"))


def train(run: Path, config: Config, seed: int) -> None:
    """Trains the tokenizer of a prepared run folder and writes `run`/tokenizer.

    The quantizer is fitted on the items of `split.fitted_on` alone, without the cold ones by default; then all
    items, cold ones too, get their SIDs from the frozen model.

    Args:
        run: Run folder with data/.
        config: The tokenizer's.
        seed: Of everything drawn at random.

    Raises:
        ValueError: For vectors or a catalog that cannot be tokenized; the message says what to change.
    """
    run = Path(run)
    manifest.refuse_to_replace(run / "tokenizer")
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    fitted_on = split.fitted_on
    vectors = read_vectors(run)
    _check_finite(vectors, catalog)
    taxonomy = build_taxonomy(catalog.category)
    items = np.flatnonzero(fitted_on)
    folder = run / "training" / "tokenizer"
    given = read_given(Path(config.given), catalog.item_id, config.level_sizes) if config.given else None
    quantizer, record = fit_quantizer(vectors, taxonomy, items, config, seed, folder, split.train, given)
    if rank() == 0:
        if given is None:
            codes, resolution = resolve(quantizer, vectors, fitted_on, config.collisions)
        else:
            codes, resolution = given, collisions.unmoved(given, config.level_sizes)
        metrics = {
            "kind": config.kind,
            "seed": seed,
            "num_items": len(catalog),
            "num_fitted": len(items),
            "quality": quality.quality(
                vectors, codes, quantizer.decode(codes), quantizer.level_sizes, taxonomy, seed
            ),
            "cold_reconstruction_r2": _cold_r2(vectors, codes, quantizer, fitted_on),
            "sids": {"level_sizes": list(resolution.level_sizes), **quality.after_resolution(resolution)},
            "pairs_in_a_batch": record.pop("pairs_in_a_batch", {}),
            "training": record,
        }
        added = {"items": catalog.fingerprint, "vectors": files.fingerprint(vectors)}
        reference = drift_reference(quantizer, vectors, codes, fitted_on)
        write_tokenizer(run / "tokenizer", quantizer, resolution, catalog.item_id, metrics, added, reference)
    barrier()


def drift_reference(
    quantizer: Quantizer, vectors: np.ndarray, codes: np.ndarray, fitted_on: np.ndarray
) -> drift.Reference:
    """What appended items will be compared with: errors and use of the nearest (N, L) codes of training."""
    errors = reconstruction_errors(vectors, quantizer.decode(codes))
    return drift.make_reference(errors, codes, fitted_on, quantizer.level_sizes)


def reconstruction_errors(vectors: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(N,) float32 squared distances of (N, D) vectors to what their codes say."""
    return np.square(vectors - decoded).sum(axis=1)


def _check_finite(vectors: np.ndarray, catalog: Catalog) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the vector of item_id {catalog.item_id[bad.argmax()]!r} holds NaN or an infinite value "
            f"({int(bad.sum())} items have such vectors). Correct the vectors and prepare the run again."
        )


def _cold_r2(
    vectors: np.ndarray, codes: np.ndarray, quantizer: Quantizer, fitted_on: np.ndarray
) -> float | None:
    """Reconstruction of the items that the quantizer has not seen, None if it has seen all."""
    hidden = ~fitted_on
    return quality.reconstruction_r2(vectors[hidden], quantizer.decode(codes[hidden])) if hidden.any() else None


def _pairs(task: RQVAETask) -> dict[str, dict[str, float]]:
    """Mean and least number of pairs of each class in the first batches of the first epoch."""
    counts = pair_counts(task.groups, task.plan(0)[:10])
    return {name: {"mean": float(np.mean(number)), "least": min(number)} for name, number in counts.items()}


def write_tokenizer(
    folder: Path,
    quantizer: Quantizer,
    resolution: collisions.Resolution,
    item_id: np.ndarray,
    metrics: dict[str, Any],
    added: dict[str, str],
    reference: drift.Reference,
) -> None:
    """Writes a tokenizer folder in one piece.

    Writes config.json, model.safetensors, codebooks.safetensors (a suffix level's entries are zero),
    sids.parquet, metrics.json, and for later appends manifest.json (with the fingerprints `added` of items and
    vectors) and drift.safetensors.
    """
    books = quantizer.codebooks()
    books += [np.zeros((size, books[0].shape[1]), np.float32) for size in resolution.level_sizes[len(books) :]]
    table = SidTable(resolution.sids, resolution.level_sizes, codebook_fingerprint(books))
    with files.replacing(folder) as partial:
        quantizer.save_pretrained(partial)
        write_codebooks(partial / "codebooks.safetensors", books)
        write_sids(partial / "sids.parquet", table, item_id)
        files.write_json(partial / "metrics.json", metrics)
        register = read_register(partial / "sids.parquet")
        manifest.write_manifest(partial, [manifest.entry(register, "train", {"items": len(register)}, added)])
        drift.write_reference(partial / "drift.safetensors", reference)


def load_quantizer(folder: Path) -> Quantizer:
    """The quantizer of a tokenizer folder, in eval mode on the CPU.

    Raises:
        ValueError: If the folder holds no quantizer of ours.
    """
    kinds = {one.config_class.model_type: one for one in (RQVAE, RQKMeans)}
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is no tokenizer folder. Run train_tokenizer first.")
    found = files.read_json(path).get("model_type")
    if found not in kinds:
        raise ValueError(
            f"{path}: model_type is {found!r}; a tokenizer's is one of {', '.join(sorted(kinds))}."
        )
    return kinds[found].from_pretrained(folder, local_files_only=True).eval()
