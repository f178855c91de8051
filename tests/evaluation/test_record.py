from __future__ import annotations

import json
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from pressmark.evaluation import record as recording


def write(folder: Path, what: str = "cold_start", rows: object = None) -> dict[str, object]:
    found = {"num_cases": {"all": 3}} if rows is None else rows
    return recording.record(what, "beauty", found, "eval/cold_start.py", {"seed": 1}, [0, 1], folder)  # type: ignore[arg-type]


def test_a_report_keeps_its_shape_and_gains_what_repeats_it(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert json.loads((tmp_path / "cold_start-beauty.json").read_text("utf-8")) == written
    assert set(written) == {"num_cases", "command", "commit", "config", "seeds", "hardware", "date"}
    assert written["seeds"] == [0, 1]
    hardware = written["hardware"]
    assert isinstance(hardware, dict)
    assert hardware["cores"] >= 1
    assert hardware["cpu"]
    assert datetime.fromisoformat(str(written["date"])).tzinfo is not None


def test_flat_records_become_rows(tmp_path: Path) -> None:
    assert write(tmp_path, "decoding", [{"beam": 10, "seconds": 1.5}])["rows"] == [{"beam": 10, "seconds": 1.5}]


@pytest.mark.parametrize("what", ["", "a/b", "../x", ".hidden"])
def test_names_stay_inside_the_folder(tmp_path: Path, what: str) -> None:
    with pytest.raises(ValueError, match="what is"):
        write(tmp_path, what)


def make_repository(folder: Path) -> Path:
    """A repository that holds this package's place, with one commit."""
    source = folder / "src" / "pressmark" / "evaluation" / "record.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    return source


def test_commit_is_marked_dirty_by_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_repository(tmp_path)
    monkeypatch.setattr(recording, "__file__", str(source))
    head = recording.commit()
    assert len(head) == 40
    (tmp_path / "notes.txt").write_text("x")
    assert recording.commit() == head
    source.write_text("# changed")
    assert recording.commit() == f"{head}-dirty"


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository(tmp_path)
    installed = tmp_path / ".venv" / "lib" / "pressmark" / "evaluation" / "record.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(recording, "__file__", str(installed))
    assert recording.commit() == ""
    monkeypatch.setattr(recording, "__file__", str(tmp_path.parent / "record.py"))
    assert recording.commit() == ""
