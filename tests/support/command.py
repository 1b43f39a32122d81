"""What tests of the command have in common."""

import csv

TINY = [
    *("--embed-dim", "24", "--depth", "1", "--epochs", "1", "--batch_size", "8"),
    *("--micro-batch", "8", "--speed-model", "test_vit", "--speed-batch-size", "2"),
    *("--speed-image-size", "64", "--no-speed-amp", "--rounds", "2"),
    *("--limit-train", "20", "--limit-val", "20"),
]


def cells(path):
    """The rows of a CSV file as dictionaries of text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
