"""The command that lists the paper's models."""

from __future__ import annotations

from mixbench.commands.options import Parser


def zoo(argv: list[str]) -> int:
    """Print parameters, multiply-adds and class attention beside the paper's; the exit status."""
    Parser("zoo").parse(argv)
    from mixbench.models.zoo import zoo_table, zoo_text

    print(zoo_text(zoo_table()))
    return 0
