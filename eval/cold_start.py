"""The judge: recall on held-out cold-start items, against a dual tower on FAISS and other baselines.

    python eval/cold_start.py --config configs/beauty.yaml [--seeds [0,1,2]] [--record true]

Holds out 5 % of the test items (docs/evaluation.md, cold_items), trains what is missing, and ranks under all
protocols: full, quota_0.1, quota_0.3, cold_only.
"""

from pressmark.cli import guarded
from pressmark.judging import main

if __name__ == "__main__":
    guarded(main, "cold_items")
