"""The pages of docs/ and the Python in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def sections(page: str) -> dict[str, list[str]]:
    """The Python blocks of a page by the heading they stand under; '' before the first."""
    blocks: dict[str, list[str]] = {}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for part in re.split(r"^## ", "\n" + text, flags=re.M):
        heading = part.partition("\n")[0]
        blocks[heading if blocks else ""] = re.findall(r"^```python\n(.*?)^```", part, re.M | re.S)
    return blocks


def run(names: dict, *blocks: str) -> dict:
    """The names after the blocks have run in them."""
    for block in blocks:
        exec(compile(block, "docs", "exec"), names)
    return names
