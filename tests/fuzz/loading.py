"""Data as a run opens them, printed by a process of its own."""

import json
from pathlib import Path

import numpy as np


def load(root: str, name: str) -> int:
    """Print the size and the pixels of an image of the training split; the exit status."""
    from mixbench.commands.status import status_of
    from mixbench.data.folders import open_folder

    def shown() -> int:
        source = open_folder(Path(root)).train
        names = [source.image_name(index) for index in range(len(source.labels))]
        if name not in names:
            raise ValueError(f"{name} is not among the images")
        index = names.index(name)
        image, size = source.load(index), source.size(index)
        pixels = np.asarray(image).tolist() if image.width * image.height < 10_000 else []
        print(json.dumps({"mode": image.mode, "size": size, "pixels": pixels}))
        return 0

    return status_of(shown)


def listing(root: str) -> int:
    """Load the images of both splits, print the classes and their names; the exit status."""
    from mixbench.commands.status import status_of
    from mixbench.data.folders import open_folder

    def shown() -> int:
        data = open_folder(Path(root))
        train, val = (
            [source.load(index) and source.image_name(index) for index in range(len(source.labels))]
            for source in (data.train, data.val)
        )
        print(json.dumps({"classes": data.classes, "train": train, "val": val}))
        return 0

    return status_of(shown)
