from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pressmark.cli import _USAGE, guarded, main


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "recommend" in capsys.readouterr().out


def test_every_command_that_is_listed_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.split()[0] for line in _USAGE.splitlines() if line.startswith("  ")]
    assert len(commands) == 12
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"pressmark {command}" in capsys.readouterr().out


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


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        guarded(interrupted)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\nstopped. Give the same command again to go on.\n"


def test_a_loss_that_is_no_number_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def diverged() -> None:
        raise FloatingPointError("the loss of step 3 is nan.")

    with pytest.raises(SystemExit) as stopped:
        guarded(diverged)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: the loss of step 3 is nan.\n"


def test_a_file_that_cannot_be_opened_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        guarded((tmp_path / "none").read_text)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory.\n"

    def unnamed() -> None:
        raise OSError("of no file")

    with pytest.raises(OSError, match="of no file"):
        guarded(unnamed)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "--splitt.protocol", "temporal"]])
def test_help_and_typing_errors_wait_for_no_library(arguments: list[str]) -> None:
    told = f"""
import sys
from pressmark.cli import main
try:
    main({arguments})
except SystemExit:
    pass
print('torch' in sys.modules, 'transformers' in sys.modules)
"""
    heard = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    assert heard.stdout.splitlines()[-1] == "False False"
