"""Yesterday and today: recall after a cut in time, on products first seen after it and on all others.

    python eval/temporal.py --config configs/beauty.yaml [--split.test_quantile 0.9] [--record true]

Trains on what lies before the first cut, chooses on what lies between the two, and asks for each user's first
interaction after the second (temporal, docs/evaluation.md). Cold is what was first seen after the cut; ranks
under all protocols: full, quota_0.1, quota_0.3, cold_only.
"""

from pressmark.cli import guarded
from pressmark.judging import main

if __name__ == "__main__":
    guarded(main, "temporal")
