from __future__ import annotations

import numpy as np
from tests.scripts import load_script

compared = load_script("sids_compared")


def test_seeds_are_averaged_by_case_or_pooled() -> None:
    one, other = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert compared.together([one, other], same_cases=True).tolist() == [1.0, 0.5]
    assert compared.together([one, other], same_cases=False).tolist() == [1.0, 0.0, 1.0, 1.0]
