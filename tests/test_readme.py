from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, "eval/tables.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "README.md is out of date: run `make tables`"
