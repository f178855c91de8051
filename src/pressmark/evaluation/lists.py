"""The lists that models recommend: asking for them, checking them, keeping them as parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pressmark import files
from pressmark.catalog.items import Catalog
from pressmark.evaluation.protocols import LIST_LENGTH
from pressmark.interactions.cases import Cases
from pressmark.recommender import Recommendations, Recommender, Requests, filter_mask


def ask(
    recommender: Recommender,
    cases: Cases,
    filter_name: str | None,
    mask_history: bool,
    batch_size: int,
    progress: str,
) -> Recommendations:
    """Asks a model for one list of 50 a case.

    Args:
        recommender: The model.
        cases: C cases, of which the model sees the history and who asks.
        filter_name: Filter that the recommender knows, or None for the whole catalog.
        mask_history: Leave the items of the history out.
        batch_size: Requests at once.
        progress: What the progress bar says: the model and the protocol.

    Returns:
        C lists, in the order of the cases.

    Raises:
        ValueError: If an answer breaks the recommender's contract, see `check`.
    """
    from tqdm import tqdm

    # Histories of like length together: a model that pads its batch wastes less.
    order = np.argsort(cases.histories.lengths, kind="stable")
    item_index = np.full((len(cases), LIST_LENGTH), -1, np.int64)
    scores = np.full((len(cases), LIST_LENGTH), -np.inf, np.float32)
    num_valid = np.zeros(len(cases), np.int64)
    with tqdm(total=len(cases), desc=progress, unit="case", disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            requests = Requests(
                cases.histories.take(rows),
                filter_name,
                mask_history,
                user_id=cases.user_id[rows],
                context=None if cases.context is None else cases.context[rows],
            )
            answer = recommender.recommend(requests, LIST_LENGTH)
            check(answer, requests, recommender, progress)
            item_index[rows], scores[rows], num_valid[rows] = answer.item_index, answer.scores, answer.num_valid
            bar.update(len(rows))
    return Recommendations(item_index, scores, num_valid)


def check(answer: Recommendations, requests: Requests, recommender: Recommender, who: str) -> None:
    """Refuses an answer that would make the figures wrong without anybody noticing.

    Raises:
        ValueError: If the shape is not (B, 50), a score is not finite (behind the list: not -inf) or rises
            along the list, an item is unknown or stands twice, the filter does not allow it, or it is in a
            masked history.
    """
    items, scores = answer.item_index, answer.scores
    shape = (len(requests), LIST_LENGTH)
    if items.shape != shape or scores.shape != shape:
        raise ValueError(f"{who}: item_index is {items.shape} and scores {scores.shape}; both must be {shape}.")
    valid = np.arange(LIST_LENGTH) < answer.num_valid[:, None]
    row, item = np.nonzero(valid)[0], items[valid]
    key = row * recommender.num_items + item
    distinct, which = requests.by_filter()
    masks = [filter_mask(recommender.filters, one, recommender.num_items) for one in distinct]
    seen = requests.histories.row_of_value() * recommender.num_items + requests.histories.values
    faults = {
        "a score is NaN or infinite": lambda: (
            not (np.isfinite(scores[valid]).all() and np.isneginf(scores[~valid]).all())
        ),
        "scores rise along a list": lambda: bool((scores[:, 1:] > scores[:, :-1])[valid[:, 1:]].any()),
        "an item_index is outside the catalog": lambda: bool(
            ((item < 0) | (item >= recommender.num_items)).any()
        ),
        "an item stands twice in a list": lambda: len(np.unique(key)) < len(key),
        f"an item is not allowed by the filter {requests.filter!r}": lambda: any(
            mask is not None and not mask[item[which[row] == number]].all() for number, mask in enumerate(masks)
        ),
        "an item of the masked history is recommended": lambda: (
            requests.mask_history and bool(np.isin(key, seen).any())
        ),
    }
    for fault, found in faults.items():
        if found():
            raise ValueError(f"{who}: {fault}; the recommender breaks its contract (pressmark.recommender).")


def fingerprint_of(cases: Cases, item_id: np.ndarray, cold: np.ndarray) -> str:
    """Fingerprint of everything besides the model that decides the lists."""
    parts = (cases.case_id, cases.histories.values, cases.histories.offsets, cases.target, cold, item_id)
    return files.fingerprint(LIST_LENGTH, *parts)


def write_lists(
    path: Path, lists: Recommendations, case_id: np.ndarray, item_id: np.ndarray, fingerprint: str
) -> None:
    """Writes `case_id` int64, `rank` int64 from 1, `item_id` string, `score` float32; one row a place.

    Args:
        path: evaluation/<protocol>/<model>.parquet.
        lists: C lists.
        case_id: (C,) int64.
        item_id: (N,) str, row = item_index.
        fingerprint: Of the model and the cases; kept in the schema's metadata.
    """
    valid = np.arange(lists.item_index.shape[1]) < lists.num_valid[:, None]
    row, place = np.nonzero(valid)
    # Dictionary-encoded: a million rows hold a few thousand different ids.
    items = pa.DictionaryArray.from_arrays(
        pa.array(lists.item_index[valid].astype(np.int32)), pa.array(item_id.tolist(), pa.string())
    )
    table = pa.table(
        {
            "case_id": case_id[row],
            "rank": (place + 1).astype(np.int64),
            "item_id": items.cast(pa.string()),
            "score": lists.scores[valid],
        }
    )
    files.write_parquet(path, table.replace_schema_metadata({"fingerprint": fingerprint}))


def is_finished(path: Path, fingerprint: str) -> bool:
    """True where `path` holds lists of exactly this model and these cases.

    An empty fingerprint never matches: a caller that cannot tell models apart computes again.
    """
    if not fingerprint or not path.exists():
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return False
    return metadata.get(b"fingerprint", b"").decode() == fingerprint


def read_lists(path: Path, case_id: np.ndarray, catalog: Catalog) -> Recommendations:
    """Reads what `write_lists` wrote.

    Args:
        path: evaluation/<protocol>/<model>.parquet.
        case_id: (C,) int64, ascending; a case without a row in the file has an empty list.
        catalog: The items that the file may name.

    Raises:
        ValueError: If the file names a case or an item that is not among those given.
    """
    table = files.read_parquet(path)
    row, place = _rows(path, table, case_id), table.column("rank").to_numpy() - 1
    ids = table.column("item_id").combine_chunks().dictionary_encode()
    index = catalog.index_of(ids.dictionary.to_pylist())
    item_index = np.full((len(case_id), LIST_LENGTH), -1, np.int64)
    scores = np.full((len(case_id), LIST_LENGTH), -np.inf, np.float32)
    item_index[row, place] = index[ids.indices.to_numpy()]
    scores[row, place] = table.column("score").to_numpy()
    return Recommendations(item_index, scores, np.bincount(row, minlength=len(case_id)).astype(np.int64))


def read_ranks(path: Path, case_id: np.ndarray, target: pa.Array) -> np.ndarray:
    """Ranks of the targets, from the lists on disk alone.

    Args:
        path: evaluation/<protocol>/<model>.parquet.
        case_id: (C,) int64, ascending.
        target: C item_id strings.

    Returns:
        (C,) int64, counted from 1; 0 = not in the list.

    Raises:
        ValueError: If the file names a case that is not among those given.
    """
    table = files.read_parquet(path)
    row = _rows(path, table, case_id)
    hit = pc.equal(table.column("item_id").combine_chunks(), target.take(pa.array(row))).to_numpy(
        zero_copy_only=False
    )
    rank = np.zeros(len(case_id), np.int64)
    rank[row[hit]] = table.column("rank").to_numpy()[hit]
    return rank


def _rows(path: Path, table: pa.Table, case_id: np.ndarray) -> np.ndarray:
    """Position in `case_id` of each row of a table of lists."""
    cases = table.column("case_id").to_numpy()
    row = np.searchsorted(case_id, cases).clip(max=max(len(case_id) - 1, 0))
    if (case_id[row] != cases).any():
        raise ValueError(f"{path}: holds a case_id that the split has not. Delete it and evaluate again.")
    return row
