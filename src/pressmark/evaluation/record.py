"""Results on record: a report or rows, with everything needed to run it again."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pressmark import files


def record(
    what: str,
    dataset: str,
    report_or_rows: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    command: str,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    folder: Path = Path("eval/results"),
) -> dict[str, Any]:
    """Writes <folder>/<what>-<dataset>.json.

    Args:
        what: leave_one_out, cold_start, temporal, tokenizer, decoding, ... (Files, docs/evaluation.md).
        dataset: The configuration's name, or `bench` for synthetic input.
        report_or_rows: A report, whose keys are kept at the top, or flat records, which become `rows`.
        command: The command line that made it.
        config: The resolved configuration.
        seeds: Seeds that went in.
        folder: Where results stand; relative to the working directory, which is the repository's root.

    Returns:
        What was written.

    Raises:
        ValueError: If `what` or `dataset` cannot be part of a file name.
    """
    for name, value in (("what", what), ("dataset", dataset)):
        if not value or not all(letter.isalnum() or letter in "_-." for letter in value) or value[0] == ".":
            raise ValueError(f"record: {name} is {value!r}; use letters, digits and _ - . for a file name.")
    found = report_or_rows if isinstance(report_or_rows, Mapping) else {"rows": list(report_or_rows)}
    result: dict[str, Any] = {
        **found,
        "command": command,
        "commit": commit(),
        "config": dict(config),
        "seeds": list(seeds),
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_json(folder / f"{what}-{dataset}.json", result)
    return result


def commit() -> str:
    """The repository's commit, with `-dirty` where src/ or configs/ differ from it.

    Empty where this file is not in the src/ of a repository: a package installed inside somebody's project must
    not report that project's commit.
    """
    here = Path(__file__).resolve()
    top = _git(here.parent, "rev-parse", "--show-toplevel")
    if not top or not here.is_relative_to(Path(top).resolve() / "src" / "pressmark"):
        return ""
    head = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(Path(top), "status", "--porcelain", "--", "src", "configs")
    return f"{head}-dirty" if head and changed else head


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, and GPU if any."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count(),
        "gpu": _gpu(),
    }


_LINUX = hasattr(os, "sched_getaffinity")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    """Its name, with family and model where they are told: the name alone can be that of several."""
    known: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            known.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = known.get("model name") or platform.processor() or platform.machine()
    if not {"cpu family", "model"} <= known.keys():
        return name
    return f"{name} (family {known['cpu family']}, model {known['model']})"


def _gpu() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join(names)
