"""The baseline for products that sell: SASRec.

accelerate launch src/train_sasrec.py --config configs/grocery.yaml
"""

from pressmark import distributed, stages
from pressmark.cli import guarded
from pressmark.experiment import parse


def main() -> None:
    """Parses the experiment, then prepares and trains what is missing."""
    experiment, _ = parse(prog="train_sasrec.py")
    guarded(distributed.start)
    guarded(stages.train_sasrec, experiment)


if __name__ == "__main__":
    main()
