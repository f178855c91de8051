from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark import distributed, living
from pressmark.catalog.items import Catalog, Columns
from pressmark.cli import main
from pressmark.tokenizer.rqkmeans import RQKMeans, RQKMeansConfig
from pressmark.tokenizing import tokenize_folder

WIDTH = 6


def vectors(num: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, WIDTH)).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a tokenizer, and shards of 60 products beside it."""
    quantizer = RQKMeans(RQKMeansConfig(WIDTH, (8, 4)))
    quantizer.fit(vectors(), "shared", 0)
    quantizer.save_pretrained(tmp_path / "run" / "tokenizer")
    (tmp_path / "items").mkdir()
    for number, rows in enumerate(np.split(np.arange(60), [25, 25, 40])):
        kind = pa.list_(pa.float32()) if number % 2 else pa.list_(pa.float32(), WIDTH)
        column = pa.array(list(vectors()[rows]), kind)
        ids = pa.array([f"item{row}" for row in rows])
        pq.write_table(
            pa.table({"item_id": ids, "vector": column}), tmp_path / "items" / f"part-{number}.parquet"
        )
    return tmp_path / "run"


def command(run: Path, out: str = "sids") -> list[str]:
    return ["tokenize", "--run", str(run), "--items", str(run.parent / "items"), "--out", str(run.parent / out)]


def test_every_product_gets_its_nearest_sid(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(command(run))
    tables = [pq.read_table(run.parent / "sids" / f"part-{number}.parquet") for number in range(4)]
    assert [len(one) for one in tables] == [25, 0, 15, 20]
    whole = pa.concat_tables(tables)
    assert whole.column("item_id").to_pylist() == [f"item{row}" for row in range(60)]
    quantizer = RQKMeans.from_pretrained(run / "tokenizer")
    assert whole.column("sid").to_pylist() == quantizer.encode(vectors()).tolist()
    assert whole.schema.field("sid").type == pa.list_(pa.int32(), 2)
    # Each process does its own; together they do what one does.
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "num_processes", lambda: 2)
        tokenize_folder(run, run.parent / "items", run.parent / "two")
        done = {one.name for one in (run.parent / "two").iterdir()}
        assert len(done) == (5 if rank else 3)
    for name in done:
        assert (run.parent / "two" / name).read_bytes() == (run.parent / "sids" / name).read_bytes()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0] * WIDTH, [1.0] * 5], "row 2: item_id '1' with a vector of 5 numbers; the tokenizer takes 6"),
        ([[1.0] * WIDTH, None], "row 2: item_id '1' with a vector of null"),
        ([[float("nan")] * WIDTH], r"the vector of item_index 0 holds NaN .*item_index 0 here is row 1"),
        ([[1] * WIDTH], "vector is list<.*int64>; it must be a list of numbers with a fraction"),
    ],
)
def test_what_is_no_vector_is_named_and_the_rest_is_done(
    run: Path, column: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = pa.array([str(row) for row in range(len(column))])
    pq.write_table(pa.table({"item_id": ids, "vector": pa.array(column)}), run.parent / "items" / "odd.parquet")
    with pytest.raises(ValueError, match=r"odd\.parquet: .*" + message):
        tokenize_folder(run, run.parent / "items", run.parent / "sids")
    assert len(list((run.parent / "sids").glob("*.parquet"))) == 4
    assert "60 products coded now" in capsys.readouterr().out
    pq.write_table(pa.table({"vector": pa.array(column)}), run.parent / "items" / "odd.parquet")
    with pytest.raises(ValueError, match=r"odd\.parquet: has the columns vector; `vector` needs `item_id`"):
        tokenize_folder(run, run.parent / "items", run.parent / "sids")


def test_texts_are_embedded_as_the_run_embeds_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"item_id": ["p2", "p1"], "title": ["milk", "bread"], "category": ["a > b", "a > c"]})
    pq.write_table(table, run.parent / "items" / "texts.parquet")

    def embed(new: Catalog) -> np.ndarray:
        assert new.title.tolist() == ["bread", "milk"]
        return vectors(2)

    monkeypatch.setattr(living, "embedder", lambda run: (Columns(), embed))
    tokenize_folder(run, run.parent / "items", run.parent / "sids")
    found = pq.read_table(run.parent / "sids" / "texts.parquet")
    assert found.column("item_id").to_pylist() == ["p1", "p2"]
    quantizer = RQKMeans.from_pretrained(run / "tokenizer")
    assert found.column("sid").to_pylist() == quantizer.encode(vectors(2)).tolist()


def test_options_that_do_not_go_together(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--append"], ["--remove", "ids.txt"]):
        with pytest.raises(SystemExit):
            main([*command(run), *more])
        assert "--out FOLDER goes with --items FOLDER" in capsys.readouterr().err
    single = [
        "tokenize",
        "--run",
        str(run),
        "--items",
        str(run.parent / "items" / "part-0.parquet"),
        "--out",
        "o",
    ]
    with pytest.raises(SystemExit):
        main(single)
    assert "one file is --append's" in capsys.readouterr().err
