from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.cli import _known_items, _read_histories, main


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "recommend" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'"),
        (
            ["recommend", "--run", "nowhere", "--histories", "none.jsonl", "--out", "o"],
            "none.jsonl: no such file",
        ),
        (["prepare", "--config", "own.yaml"], "--data.path"),
        (["prepare", "--config", "own.yaml", "--data.path", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistakes_end_with_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"history": "milk"}', "row 2: history is 'milk'"),
        ('{"history": [1]}', "row 2"),
        ("{", "row 2: not valid JSON"),
        ('{"user_id": "u"}', "row 2: history is None"),
        ('{"history": [], "cart": "milk"}', "row 2: cart is 'milk'"),
        ('{"history": [], "context": 3}', "row 2: context is 3"),
    ],
)
def test_a_bad_history_names_its_file_and_row(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"user_id": "a", "history": ["x"]}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        _read_histories(path)


def test_items_that_are_gone_are_left_out_of_histories() -> None:
    item_id = np.array(["x", "y"], object)
    assert _known_items(Path("h"), [["x", "gone"], [], ["gone"]], item_id) == ([["x"], [], []], 2)
    with pytest.raises(ValueError, match="h: record 2: item id 'X', like all 2 others"):
        _known_items(Path("h"), [[], ["X"], ["Y"]], item_id)


def test_histories_without_a_user_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"history": []}\n\n{"user_id": 7, "history": ["x", "y"]}\n')
    assert _read_histories(path) == (["1", "7"], [[], ["x", "y"]], ["", ""], [[], []])
    path.write_bytes(b'{"history": []}\n\n{"user_id": null, "history": ["caf\xe9"]}\n')
    with pytest.raises(ValueError, match="row 3: not valid JSON"):
        _read_histories(path)


def test_contexts_and_carts_stand_beside_histories(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"history": ["x"], "context": "north", "cart": ["y"]}\n{"history": ["z"], "cart": null}\n')
    found = _read_histories(path)
    assert (found.contexts, found.carts) == (["north", ""], [["y"], []])
