"""`pressmark terms` as a user calls it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pressmark import files
from pressmark.cli import main
from pressmark.insight.terms.file import read_terms


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("terms") / "run"))


def test_mine_edit_and_ask(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "terms.txt"
    main(["terms", "--run", str(run), "--out", str(path), "--min-titles", "3"])
    mined = read_terms(path)
    assert f"{path}: {len(mined):,} terms" in capsys.readouterr().out

    path.write_text(path.read_text("utf-8") + "unheard of thing\n", "utf-8")
    edited = path.read_text("utf-8")
    with pytest.raises(SystemExit):
        main(["terms", "--run", str(run), "--out", str(path), "--min-titles", "3"])
    assert "exists already, and somebody may have edited it" in capsys.readouterr().err
    assert path.read_text("utf-8") == edited
    again = tmp_path / "again.txt"
    for force in ([], ["--force"]):
        main(["terms", "--run", str(run), "--out", str(again), "--min-titles", "3", *force])
        assert read_terms(again) == mined
        again.write_text("something else\n", "utf-8")
    capsys.readouterr()
    ask = [
        "terms",
        "--run",
        str(run),
        "--vocabulary",
        str(path),
        "--encoder",
        "words",
        "--least",
        "0",
        "--k",
        "2",
    ]
    title = f"Acme {mined[0].upper()} and more"
    main([*ask, title, "Acme <b>Organic</b>"])
    shown = capsys.readouterr().out.splitlines()
    assert re.match(
        rf"\d+ of {len(mined) + 1} terms are said by no title alone: known by their names", shown[0]
    )
    at = shown.index(title)
    assert shown[at + 1].split()[-3:] == ["in", "the", "title"]
    assert shown[at + 1].startswith(f"  {mined[0]}")
    assert len(shown[at:]) == 4 + 3  # one said, two not, and two not of the other title
    main([*ask, title])
    assert "learning" not in capsys.readouterr().out  # kept from the first time


def test_titles_from_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "titles.txt").write_text("One Title\n\nAnother\n", "utf-8")
    ask = ["terms", "--run", str(run), "--min-titles", "3", "--encoder", "words"]
    main([*ask, "--titles", str(tmp_path / "titles.txt")])
    shown = capsys.readouterr().out.splitlines()
    assert {"One Title", "Another"} <= set(shown)


def test_a_title_without_a_word_is_about_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["terms", "--run", str(run), "--min-titles", "3", "--encoder", "words", "--least", "0"]
    main([*ask, "", " -!", "Acme"])
    shown = capsys.readouterr().out.splitlines()
    at = shown.index("")
    assert shown[at : at + 3] == ["", " -!", "Acme"]
    assert shown[at + 3].startswith("  ")


def test_a_killed_or_second_command_leaves_no_other_vocabulary_s_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mined = tmp_path / "mined.txt"
    main(["terms", "--run", str(run), "--out", str(mined), "--min-titles", "3"])
    words = read_terms(mined)
    for name, terms in (("a", words), ("b", words[:-1]), ("c", words[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n".join(terms), "utf-8")

    def ask(name: str) -> str:
        given = ["--vocabulary", str(tmp_path / f"{name}.txt"), "--encoder", "words", "--least", "0"]
        capsys.readouterr()
        main(["terms", "--run", str(run), *given, "Organic fresh thing"])
        return capsys.readouterr().out.split("Organic fresh thing")[1]

    right, written = ask("a"), []
    keep = files.replacing

    @contextmanager
    def killed(path: Path) -> Iterator[Path]:
        """A kill before the second file, or right after the only one."""
        if written:
            raise KeyboardInterrupt
        with keep(path) as partial:
            yield partial
        written.append(path)

    for name in ("b", "c"):
        written.clear()
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt, SystemExit):
            patch.setattr(files, "replacing", killed)
            ask(name)
        assert ask("a") == right
    with files.holding(run / "terms", "pressmark terms") as take:
        take(False)
        assert ask("a") == right  # what is kept is read without waiting
        with pytest.raises(SystemExit):
            ask("b")
    assert "another `pressmark terms` is at work on it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --out FILE to write the vocabulary, or titles"),
        (["--out", "x.txt", "title"], "give it without titles"),
        (["--titles", "none.txt"], "no such file"),
        (["--force", "t"], "--force is for --out"),
        (["--k", "0", "t"], "--k (0) must be at least 1"),
        (["--vocabulary", "none.txt", "t"], "--vocabulary none.txt: no such file"),
        (["--vocabulary", "none.txt", "--min-titles", "2", "t"], "--min-titles is for mining"),
        (["--min-titles", "200", "--out", "x.txt"], "no product term in the titles"),
        (["--min-titles", "3", "--encoder", "dual_tower", "t"], "holds no dual tower"),
    ],
)
def test_mistakes(run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["terms", "--run", str(run), *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_vocabulary_that_no_title_says(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "terms.txt").write_text("flux capacitor\n", "utf-8")
    with pytest.raises(SystemExit):
        main(
            ["terms", "--run", str(run), "--vocabulary", str(tmp_path / "terms.txt"), "--encoder", "words", "t"]
        )
    assert "none of the" in capsys.readouterr().err
