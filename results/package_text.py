"""The README as a package index shows it: a hook of hatchling (pyproject.toml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"!\[[^\]]*\]\((?!https?://)[^)]*\)\n*")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


def package_text(readme: str) -> str:
    """The text without links and pictures that lead to other files of a checkout."""
    return LINK.sub(r"\1", PICTURE.sub("", COMMENT.sub("", readme)))


class PackageText(MetadataHookInterface):
    """Called by hatchling when it builds."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the description."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": package_text(text)}
