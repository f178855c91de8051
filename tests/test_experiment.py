from __future__ import annotations

from pathlib import Path

import pytest

from pressmark.experiment import Experiment, find_config, parse

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(path: Path) -> None:
    experiment, _ = parse(["--config", str(path)])
    assert experiment.name == path.stem


def test_without_a_config_the_grocery_store_is_used() -> None:
    experiment, _ = parse([])
    assert experiment.name == "grocery"
    assert experiment.run == Path("runs/grocery/cold_items/seed0")


def test_flags_override_the_file() -> None:
    experiment, extra = parse(
        [
            "--config",
            "configs/beauty.yaml",
            "--data.path",
            "d",
            "--split.protocol",
            "leave_one_out",
            "--seed",
            "3",
            "--seeds",
            "[0,1]",
        ],
        extra={"seeds": {"type": list[int], "default": [0]}},
    )
    assert experiment.data.path == "d"
    assert experiment.run == Path("runs/beauty/leave_one_out/seed3")
    assert extra == {"seeds": [0, 1]}
    assert parse(["--run_dir", "elsewhere"])[0].run == Path("elsewhere")


def test_the_shuffled_twin_has_its_own_run_folder() -> None:
    assert parse(["--split.ties", "shuffled"])[0].run == Path("runs/grocery/cold_items-shuffled/seed0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer.contrastive_wieght", "0.1"], "Did you mean --tokenizer.contrastive_weight?"),
        (["--seed", "x"], "seed"),
        (["--seed", "-1"], "seed is -1"),
        (["--config", "no.yaml"], "Shipped with Pressmark: beauty.yaml"),
        (["--split.protocol", "random"], "leave_one_out"),
        (["--name", "a/b"], "letters, digits"),
        (["--seed"], "argument --seed: expected one argument\n"),
        (["--seed", "1.5"], "seed is '1.5'; it must be a whole number."),
        (["--split.protocol", "x"], "is 'x'; it must be one of leave_one_out, cold_items, temporal."),
        (["--tokenizer.masking", "x"], "tokenizer.masking is 'x'; it must be a number."),
        (["--tokenizer.level_sizes", "[4,a]"], "level_sizes holds 'a'; each of its values must be a whole"),
        (["--tokenizer.level_sizes", "[0,4]"], "level_sizes is [0, 4]; every level needs 1 code or more."),
        (["--split", "x"], "split is 'x'; it is a group of keys: set one of them, such as split.protocol."),
        (
            ["--data.columns.text", "summary"],
            "data.columns.text is 'summary'; it must be a list: write [summary], on a command line in quotes.",
        ),
    ],
)
def test_mistakes_end_in_one_clear_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_key_in_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("generator: {training: {learning_rat: 1}}")
    with pytest.raises(SystemExit):
        parse(["--config", str(path)])
    found = capsys.readouterr().err
    assert "learning_rat" in found
    assert "Did you mean --generator.training.learning_rate?" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  columns: [a\nseed: 3\n", "bad.yaml: line 3, column 5: not valid YAML ("),
        ("- a\n", "bad.yaml: holds no key with a value"),
        ("", "bad.yaml: holds no key with a value"),
        ("data: {columns: {text: summary}}", "data.columns.text is 'summary'; it must be a list"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        parse(["--config", str(path)])
    assert message in capsys.readouterr().err


def test_an_option_of_two_types_says_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--seeds", "x"], extra={"seeds": {"type": int | list[int], "default": []}})
    assert "seeds is 'x'; it must be a whole number or a list of whole numbers." in capsys.readouterr().err


def test_configs_are_found_by_name_alone() -> None:
    assert find_config("own.yaml").name == "own.yaml"
    assert Experiment().data.source == "folder"
