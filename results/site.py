"""The documentation site's files where a checkout has them: a hook of mkdocs (mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def site_files(root: Path) -> list[str]:
    """README, docs/ and every file that they link to, below a checkout's root.

    A link that leads nowhere, out of the checkout or to a folder is left for mkdocs to refuse.
    """
    inside = [path for path in (root / "docs").rglob("*") if path.is_file()]
    waiting = [root / name for name in PAGES] + inside
    found: set[Path] = set()
    while waiting:
        path = waiting.pop().resolve()
        if path in found or not path.is_file() or not path.is_relative_to(root.resolve()):
            continue
        found.add(path)
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            waiting += [path.parent / link for link in LINK.findall(text) if "://" not in link]
    return sorted(path.relative_to(root.resolve()).as_posix() for path in found)


def on_files(files: Any, *, config: Any) -> Any:
    """Called by mkdocs with the files of docs/ as the root: replace them by those of a checkout."""
    from mkdocs.structure.files import File, Files

    root = Path(config.config_file_path).parent
    theme = [file for file in files if not str(file.abs_src_path).startswith(config.docs_dir)]
    own = [File.generated(config, name, abs_src_path=str(root / name)) for name in site_files(root)]
    return Files([*theme, *own])
