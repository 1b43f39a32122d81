"""Compare image-mixing strategies: `python bench.py --strategies cutmix,transmix`."""

import sys

from mixbench.cli import main

if __name__ == "__main__":
    sys.exit(main(script=True))
