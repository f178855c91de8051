"""Next-item recall under the leave-one-out protocol of the literature.

    python eval/leave_one_out.py --config configs/beauty.yaml [--split.ties shuffled] [--record true]

A user's last interaction is the test case, the one before the validation case; full ranking at item level.
"""

from pressmark.cli import guarded
from pressmark.judging import main

if __name__ == "__main__":
    guarded(main, "leave_one_out")
