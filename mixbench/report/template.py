"""The pages' templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def template(name: str) -> Any:
    """The page of that name, which breaks specs at brackets and commas where `breakable`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda text: Markup(
        re.sub(r"([(,=])", r"\1<wbr>", str(escape(text)))
    )
    return environment.get_template(name)
