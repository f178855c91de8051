"""Generator and dense retrieval as one recommender: trains what is missing and fits their weights.

accelerate launch src/train_hybrid.py --config configs/grocery.yaml
"""

from pressmark import distributed, stages
from pressmark.cli import guarded
from pressmark.experiment import parse


def main() -> None:
    """Parses the experiment, then prepares, trains and fits what is missing."""
    experiment, _ = parse(prog="train_hybrid.py")
    guarded(distributed.start)
    guarded(stages.train_hybrid, experiment)


if __name__ == "__main__":
    main()
