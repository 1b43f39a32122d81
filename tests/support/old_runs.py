"""Files as an older mixbench wrote them."""

from pathlib import Path

import numpy as np


def write_correct(path: Path, right, names=None) -> None:
    """A packed bitmap of which validation images were right, in place of which images.npz came."""
    flags = np.asarray(right, bool)
    arrays = {"bits": np.packbits(flags), "count": np.int64(len(flags))}
    if names is not None:
        text = "\0".join(names).encode("utf-8", "surrogateescape")
        arrays["names"] = np.frombuffer(text, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
