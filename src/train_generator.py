"""Stage two: histories to the next Semantic ID.

accelerate launch src/train_generator.py --config configs/grocery.yaml
"""

from pressmark import distributed, stages
from pressmark.cli import guarded
from pressmark.experiment import parse


def main() -> None:
    """Parses the experiment, then prepares and trains what is missing."""
    experiment, _ = parse(prog="train_generator.py")
    guarded(distributed.start)
    guarded(stages.train_generator, experiment)


if __name__ == "__main__":
    main()
