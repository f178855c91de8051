from __future__ import annotations

import pytest

from pressmark.cli import main


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
