"""`python -m mixbench`: the command."""

import sys

from mixbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
