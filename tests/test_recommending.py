from __future__ import annotations

import argparse
import importlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark import distributed, recommending, shard_work
from pressmark.catalog.items import Catalog
from pressmark.load import LoadedRecommender
from pressmark.recommender import Recommendations, Requests, allowed_items, top_k
from pressmark.recommending import Record, batches

ITEM_ID = np.array(["a", "b", "c", "x", "y"], object)


class Favourites:
    """Likes what the history holds, then the first items."""

    def __init__(self) -> None:
        self.num_items, self.filters = len(ITEM_ID), dict[str, np.ndarray]()
        self.asked: list[int] = []

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        self.asked.append(len(requests))
        scores = np.tile(-np.arange(self.num_items, dtype=np.float32), (len(requests), 1))
        scores[requests.histories.row_of_value(), requests.histories.values] += 10
        return top_k(scores, allowed_items(self.filters, requests, self.num_items), k)


@pytest.fixture
def favourites() -> Favourites:
    return Favourites()


@pytest.fixture
def model(favourites: Favourites) -> LoadedRecommender:
    blank = np.full(len(ITEM_ID), "", object)
    return LoadedRecommender(favourites, Catalog(ITEM_ID, blank, blank, ((),) * len(ITEM_ID), {}))


def options(**changes: object) -> argparse.Namespace:
    values = {"k": 2, "batch_size": 2, "keep_history": True, "certify": False, **changes}
    return argparse.Namespace(**values)


def write(path: Path, histories: list[object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"history": one}) + "\n" for one in histories))
    else:
        users = pa.array([f"u{number}" for number in range(len(histories))])
        pq.write_table(
            pa.table({"user_id": users, "history": pa.array(histories, pa.list_(pa.string()))}), path
        )
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_is_answered_a_batch_at_a_time(
    tmp_path: Path, model: LoadedRecommender, favourites: Favourites, suffix: str
) -> None:
    source = write(tmp_path / f"h{suffix}", [["y"], [], ["x", "gone"], ["c", "c"], ["b"]])
    assert recommending.answer_file(model, None, options(), source, tmp_path / "o.parquet") == (5, 1, 0)
    assert favourites.asked == [2, 2, 1]
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column("item_id").to_pylist() == ["y", "a", "a", "b", "x", "a", "c", "a", "b", "a"]
    assert table.column("rank").to_pylist() == [1, 2] * 5
    assert table.column("score").to_pylist()[:4] == [6, 0, 0, -1]
    users = ["1", "2", "3", "4", "5"] if suffix == ".jsonl" else ["u0", "u1", "u2", "u3", "u4"]
    assert table.column("user_id").to_pylist() == [one for user in users for one in (user, user)]
    masked = options(keep_history=False, k=9)
    recommending.answer_file(model, None, masked, source, tmp_path / "m.parquet")
    assert pq.read_table(tmp_path / "m.parquet").num_rows == 4 + 5 + 4 + 4 + 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"history": "milk"}', "row 2: history is 'milk'"),
        ('{"history": [1]}', "row 2"),
        ("{", "row 2: not valid JSON"),
        ('{"user_id": "u"}', "row 2: the field 'history' is missing"),
        ('["x"]', r"row 2: is \['x'\], no object"),
        ('{"history": [], "cart": "milk"}', "row 2: cart is 'milk'"),
        ('{"history": [], "context": 3}', "row 2: context is 3"),
    ],
)
def test_a_bad_history_names_its_file_and_row(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"user_id": "a", "history": ["x"]}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        list(batches(path, 10))


def test_a_parquet_of_other_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    pq.write_table(pa.table({"items": [["x"]]}), path)
    with pytest.raises(ValueError, match=r"h\.parquet: row 1: the field 'history' is missing"):
        list(batches(path, 10))
    pq.write_table(pa.table({"history": [["x"], None]}), path)
    with pytest.raises(ValueError, match=r"h\.parquet: row 2: history is None"):
        list(batches(path, 10))


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text("user_id,history\nu,x\n")
    with pytest.raises(ValueError, match=r"h\.csv: the name must end in \.parquet or \.jsonl"):
        list(batches(path, 10))


def test_only_the_generators_search_needs_a_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--run", str(tmp_path), "--histories", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "o")]
    with pytest.raises(ValueError, match="no such file"):
        recommending.recommend([*paths, "--certify", "--model", "hybrid"])
    assert "the hybrid looks at every product anyway" in capsys.readouterr().out


def test_there_may_be_nothing_to_deny(
    tmp_path: Path, model: LoadedRecommender, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("gone\n")
    given = options(filter=None, allow=None, deny=ids)
    assert recommending._register_filters(model, given) is None
    assert (
        "ids.txt: the catalog holds none of its 1 ids, such as 'gone': nothing is denied"
        in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match=r"--allow .*the catalog holds none"):
        recommending._register_filters(model, options(filter=None, allow=ids, deny=None))


def test_without_appended_items_the_model_is_named(tmp_path: Path, model: LoadedRecommender) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"item_id": ["a"]}), tmp_path / "data" / "cold_items.parquet")
    given = options(filter="appended", allow=None, deny=None, run=tmp_path, model="")
    with pytest.raises(ValueError, match=r"the model generator of .* knows no appended item"):
        recommending._register_filters(model, given)


def test_contexts_and_carts_stand_beside_histories(
    tmp_path: Path, model: LoadedRecommender, favourites: Favourites, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "h.jsonl", list[Requests]()
    path.write_text('{"history": ["x"], "context": "", "cart": ["y", "gone"]}\n{"history": [], "cart": null}\n')
    answer = favourites.recommend
    monkeypatch.setattr(favourites, "recommend", lambda one, k: asked.append(one) or answer(one, k))
    assert recommending.answer_file(model, None, options(), path, tmp_path / "o.parquet") == (2, 1, 0)
    # A model that reads no carts has them at the end of the histories.
    assert [asked[0].histories[row].tolist() for row in range(2)] == [[3, 4], []]
    path.write_text('{"history": ["x"], "context": "north"}\n')
    with pytest.raises(ValueError, match="context 'north': this model reads no context"):
        recommending.answer_file(model, None, options(), path, tmp_path / "o.parquet")
    favourites.reads = frozenset({"context"})  # type: ignore[attr-defined]
    recommending.answer_file(model, None, options(), path, tmp_path / "o.parquet")
    assert asked[-1].context is not None
    assert asked[-1].context.tolist() == ["north"]


def test_items_that_are_gone_are_left_out_but_not_all_of_them(tmp_path: Path, model: LoadedRecommender) -> None:
    source, place = write(tmp_path / "h.jsonl", [[], ["X"], ["Y"]]), tmp_path / "o.parquet"
    with pytest.raises(ValueError, match=r"h\.jsonl: record 2: item id 'X', like all 2 others"):
        recommending.answer_file(model, None, options(), source, place)
    assert not place.exists()
    assert recommending.answer_file(model, None, options(), write(source, [[], []]), place) == (2, 0, 0)


def test_histories_without_a_user_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"history": []}\n\n{"user_id": 7, "history": ["x", "y"]}\n')
    assert list(batches(path, 1)) == [[Record(1, "1", [], "", [])], [Record(2, "7", ["x", "y"], "", [])]]
    path.write_bytes(b'{"history": []}\n\n{"user_id": null, "history": ["caf\xe9"]}\n')
    with pytest.raises(ValueError, match="row 3: not valid JSON"):
        list(batches(path, 10))


@pytest.fixture
def command(tmp_path: Path, model: LoadedRecommender, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`recommend` over tmp_path/h into tmp_path/<out>, as process `rank` of `world`."""
    monkeypatch.setattr(importlib.import_module("pressmark.load"), "load", lambda run, name: model)

    def run(out: str = "o", rank: int = 0, world: int = 1, *more: str) -> None:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "num_processes", lambda: world)
        paths = ["--run", str(tmp_path), "--histories", str(tmp_path / "h"), "--out", str(tmp_path / out)]
        recommending.recommend([*paths, "--k", "2", "--keep-history", *more])

    return run


def answers(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(folder.iterdir())}


def shards(tmp_path: Path, num: int = 3) -> None:
    for number in range(num):
        write(tmp_path / "h" / f"part-{number}.parquet", [["y"], ["x"] * number, [], ["gone", "b"]])


def test_any_number_of_processes_gives_the_same_files(
    tmp_path: Path,
    command,
    capsys: pytest.CaptureFixture[str],  # type: ignore[no-untyped-def]
) -> None:
    shards(tmp_path)
    command("one")
    assert "12 users answered now, at most 2 items each\n3 history items are not" in capsys.readouterr().out
    for rank in (1, 0):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / "recommend.json").write_bytes((tmp_path / "one" / "recommend.json").read_bytes())
        command("two", rank, 2)
        assert len(answers(tmp_path / "two")) == (2 if rank else 4)
    assert answers(tmp_path / "one") == answers(tmp_path / "two")
    for rank in range(5):
        command("five", rank, 5)
    assert answers(tmp_path / "one") == answers(tmp_path / "five")
    assert "mind: 3 shards for 5 processes; 2 have nothing to do." in capsys.readouterr().out


def test_finished_shards_are_not_answered_again(
    tmp_path: Path,
    command,
    favourites: Favourites,
    capsys: pytest.CaptureFixture[str],  # type: ignore[no-untyped-def]
) -> None:
    shards(tmp_path)
    command()
    whole = answers(tmp_path / "o")
    # A kill leaves whole files, and at most a partial one.
    (tmp_path / "o" / "part-1.parquet").unlink()
    (tmp_path / "o" / ".part-1.parquet.partial").write_bytes(b"PAR1 half of it")
    favourites.asked.clear()
    command()
    assert favourites.asked == [4]
    assert answers(tmp_path / "o") == whole
    assert "2 of 3 shards of process 0 were done before" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"recommend\.json: .*other settings \(k was 2, is 3\)"):
        command("o", 0, 1, "--k", "3")
    write(tmp_path / "h" / "part-2.parquet", [["x"]])
    with pytest.raises(ValueError, match=r"o.part-2\.parquet: was made of another part-2\.parquet"):
        command()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "config.json"])
def test_shards_of_a_model_that_was_trained_again_are_refused(tmp_path: Path, command, name: str) -> None:  # type: ignore[no-untyped-def]
    shards(tmp_path, 1)
    made = tmp_path / "generator" / name
    made.parent.mkdir()
    made.write_bytes(b"one")
    command()
    made.write_bytes(b"two")
    with pytest.raises(ValueError, match=r"other settings \(built_on was"):
        command()


def test_an_out_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path,
    command,  # type: ignore[no-untyped-def]
    favourites: Favourites,
) -> None:
    source = write(tmp_path / "h" / "h.jsonl", [["y"]])
    write(tmp_path / "some" / "one.jsonl", [["y"]])
    file = ("--histories", str(source))
    with pytest.raises(ValueError, match=r"--out .*some: is a folder"):
        command("some", 0, 1, *file)
    with pytest.raises(ValueError, match=r"--out .*h\.jsonl: is the file of the histories"):
        command("h/h.jsonl", 0, 1, *file)
    for more in (file, ()):
        with pytest.raises(ValueError, match=r"--out .*one\.jsonl.x.y: .*one\.jsonl is a file, no folder"):
            command("some/one.jsonl/x/y", 0, 1, *more)
    assert not favourites.asked


def test_more_items_than_there_are_and_users_who_get_few_are_told(
    tmp_path: Path,
    command,  # type: ignore[no-untyped-def]
    capsys: pytest.CaptureFixture[str],
) -> None:
    shards(tmp_path, 2)
    (tmp_path / "one.txt").write_text("a\n")
    command("few", 0, 1, "--allow", str(tmp_path / "one.txt"))
    assert "mind: 8 users got fewer than 2 items" in capsys.readouterr().out
    command("enough")
    assert "fewer" not in capsys.readouterr().out
    command("many", 0, 1, "--k", "1000000000")
    assert "--k 1000000000: the model knows 5 products" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "many" / "part-0.parquet").num_rows == 4 * 5


def test_lists_of_ids_are_not_padded(model: LoadedRecommender) -> None:
    assert [one.item_id for one in model.recommend([["y"]], 10**12)[0]] == ["a", "b", "c", "x"]


def test_certified_answers_say_who_is_proven(tmp_path: Path) -> None:
    class Prover(Favourites):
        def recommend(self, requests: Requests, k: int) -> Recommendations:
            return replace(super().recommend(requests, k), exact=requests.histories.lengths > 0)

    blank = np.full(len(ITEM_ID), "", object)
    catalog = Catalog(ITEM_ID, blank, blank, ((),) * len(ITEM_ID), {})
    source = write(tmp_path / "h.jsonl", [["y"], [], ["x"]])
    for prover, column in ((Prover(), [True, True, False, False, True, True]), (Favourites(), [None] * 6)):
        place = tmp_path / "o.parquet"
        shop = LoadedRecommender(prover, catalog)
        recommending.answer_file(shop, None, options(certify=True), source, place)
        table = pq.read_table(place)
        assert table.column("exact").to_pylist() == column
        assert table.schema.field("exact").type == pa.bool_()
        recommending.answer_file(shop, None, options(), source, place)
        assert "exact" not in pq.read_table(place).column_names


def test_a_user_id_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"history": []}\n{"user_id": "\\ud800", "history": []}\n')
    with pytest.raises(ValueError, match=r"h\.jsonl: row 2: user_id is '\\ud800'"):
        list(batches(path, 10))


def test_a_second_launch_keeps_off(tmp_path: Path, command) -> None:  # type: ignore[no-untyped-def]
    fcntl = pytest.importorskip("fcntl")
    shards(tmp_path)
    command()
    held = os.open(tmp_path / "o", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(ValueError, match="another `recommend` is at work on it"):
            command()
    finally:
        os.close(held)
    command()


def test_a_broken_shard_is_named_when_all_others_are_done(
    tmp_path: Path,
    command,
    favourites: Favourites,  # type: ignore[no-untyped-def]
) -> None:
    shards(tmp_path)
    path = tmp_path / "h" / "part-0.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    pq.write_table(pa.table({"history": ["x"]}), tmp_path / "h" / "part-1.parquet")
    with pytest.raises(ValueError, match=r"part-0\.parquet: cannot be read as parquet") as caught:
        command()
    assert "part-1.parquet: row 1: history is 'x'; it must be a list" in str(caught.value)
    assert "2 shards could not be done; all others are" in str(caught.value)
    assert sorted(answers(tmp_path / "o")) == ["part-2.parquet", "recommend.json"]
    path.write_bytes(whole)
    write(tmp_path / "h" / "part-1.parquet", [["x"]])
    favourites.asked.clear()
    command()
    assert favourites.asked == [4, 1]


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    with pytest.raises(ValueError, match=r"no \.parquet or \.jsonl file in it"):
        shard_work.shards_of(tmp_path / "h", tmp_path / "o", recommending.SUFFIXES)
    shards(tmp_path)
    with pytest.raises(ValueError, match="is the folder of the shards"):
        shard_work.shards_of(tmp_path / "h", tmp_path / "h", recommending.SUFFIXES)
    (tmp_path / "o").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        shard_work.shards_of(tmp_path / "h", tmp_path / "o", recommending.SUFFIXES)
    write(tmp_path / "h" / "part-0.jsonl", [])
    with pytest.raises(ValueError, match=r"part-0\.parquet and part-0\.jsonl have one result"):
        shard_work.shards_of(tmp_path / "h", tmp_path / "p", recommending.SUFFIXES)


def test_a_file_is_one_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "start", lambda: argparse.Namespace(num_processes=2))
    file = write(tmp_path / "h.jsonl", [[]])
    with pytest.raises(ValueError, match="give a folder of shards"):
        recommending.recommend(["--run", "r", "--histories", str(file), "--out", "o"])


def test_threads_may_ask_at_once_where_products_were_removed() -> None:
    both = threading.Barrier(2, timeout=60)

    class Slow(Favourites):
        def recommend(self, requests: Requests, k: int) -> Recommendations:
            both.wait()
            return super().recommend(requests, k)

    blank, slow = np.full(len(ITEM_ID), "", object), Slow()
    shop = LoadedRecommender(slow, Catalog(ITEM_ID, blank, blank, ((),) * len(ITEM_ID), {}), ITEM_ID != "a")
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(shop.recommend, [["y"]] * number, 2, mask_history=False) for number in (1, 2)]
        for number, answer in enumerate(answers, start=1):
            assert [[one.item_id for one in items] for items in answer.result()] == [["y", "b"]] * number
    assert not shop.filters
