"""The pages' templates."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from mixbench.visible import shortened, visible

LONGEST_CLASS = 40  # characters of a class in the gallery


def data_url(content: bytes, kind: str) -> str:
    """A picture as a page holds it in itself; `kind` is png or jpeg."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def template(name: str) -> Any:
    """The page of that name, which breaks specs at brackets and commas where `breakable`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup, escape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    environment.filters["breakable"] = lambda text: Markup(
        re.sub(r"([(,=])", r"\1<wbr>", str(escape(visible(text))))
    )
    # an interval and a deviation stay on one line
    environment.filters["whole"] = lambda text: Markup(
        re.sub(r"(± \S+|\[[^]]*\])", r"<span>\1</span>", str(escape(visible(text))))
    )
    # apart from its surroundings: else a name in Arabic would turn the figures beside it around
    environment.filters["class_name"] = lambda text: Markup('<bdi title="{}">{}</bdi>').format(
        visible(text), shortened(visible(text), LONGEST_CLASS)
    )
    return environment.get_template(name)
