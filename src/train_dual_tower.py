"""The main baseline: two towers and a FAISS index.

accelerate launch src/train_dual_tower.py --config configs/grocery.yaml
"""

from pressmark import distributed, stages
from pressmark.cli import guarded
from pressmark.experiment import parse


def main() -> None:
    """Parses the experiment, then prepares and trains what is missing."""
    experiment, _ = parse(prog="train_dual_tower.py")
    guarded(distributed.start)
    guarded(stages.train_dual_tower, experiment)


if __name__ == "__main__":
    main()
