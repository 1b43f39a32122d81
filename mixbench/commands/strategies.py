"""What is said of each strategy: what it is, its parameters, its paper, needs and cost."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import sys
from typing import Any

from mixbench.errors import sentence
from mixbench.mix import MixStrategy, Needs
from mixbench.published import published
from mixbench.registry import list_strategies, strategy_class
from mixbench.spec import read_strategy, strategy_spec
from mixbench.values import error_text

PAPER = re.compile(r"([^:]+ \([^()]*\d{4}[^()]*\)):")  # how a module of a published method begins
OWN_ATTENTION = re.compile(r"last|rollout|[+-]?\d+")  # read in the model's own forward pass


def strategy_rows() -> list[dict[str, Any]]:
    """What is known of each registered strategy; of a broken one its name and the reason."""
    return [_row(name) for name in list_strategies()]


def _row(name: str) -> dict[str, Any]:
    try:
        return _known(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plug-in that is broken in any way ends nothing
        return {"name": name, "broken": error_text(error).removeprefix("ValueError: ")}


def _known(name: str) -> dict[str, Any]:
    cls = strategy_class(name)
    parameters = [_parameter(field) for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    row: dict[str, Any] = {
        "name": name,
        "sentence": _first_sentence(cls),
        "parameters": parameters,
        "paper": _paper(cls),
    }
    if all("default" in parameter for parameter in parameters):
        strategy = read_strategy(name)
        row |= {"needs": _needs(strategy.needs), "cost": _cost(name, strategy)}
    return row


def _parameter(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """A parameter's name and, where it has one, its default."""
    if field.default is not dataclasses.MISSING:
        return {"name": field.name, "default": _plain(field.default)}
    if field.default_factory is not dataclasses.MISSING:
        return {"name": field.name, "default": _plain(field.default_factory())}
    return {"name": field.name}


def _plain(value: Any) -> Any:
    """A default as JSON has it; a strategy, and what JSON lacks, as text."""
    if isinstance(value, MixStrategy):
        return strategy_spec(value)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    known = value is None or type(value) in (bool, int, str)
    return value if known or (type(value) is float and math.isfinite(value)) else str(value)


def _first_sentence(cls: type) -> str:
    """What a strategy is, in the first sentence of its class; "" where that has none."""
    text = inspect.getdoc(cls) or ""
    if text.startswith(f"{cls.__name__}("):  # dataclass's own, where nobody wrote one
        return ""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(text.split("\n\n")[0].split()))[0]


def _paper(cls: type) -> str | None:
    """Method, authors and year as its module begins: `Method (Authors, year): ...`."""
    module = sys.modules.get(cls.__module__)
    found = PAPER.match((module and inspect.getdoc(module)) or "")
    return found[1] if found else None


def _needs(needs: Needs) -> dict[str, Any]:
    """The services that a strategy asks for, by name."""
    fields = {field.name: getattr(needs, field.name) for field in dataclasses.fields(needs)}
    return {name: value for name, value in fields.items() if value}


def _cost(name: str, strategy: MixStrategy) -> dict[str, Any]:
    """What an update costs beside a forward and a backward pass, and the mix itself."""
    needs = strategy.needs
    both = bool(needs.input_gradient) + bool(strategy.clean_weight)
    others = bool(needs.network) + bool(
        needs.attention and not OWN_ATTENTION.fullmatch(str(needs.attention))
    )
    ratio = published(name).ratio
    return {
        "more_forward_passes": both + bool(needs.look),
        "more_backward_passes": both,
        "forward_passes_of_other_networks": others,
        "paper_ratio_to_cutmix": ratio and float(ratio),
    }


def strategy_lines(row: dict[str, Any]) -> list[str]:
    """A strategy as a person reads it: how it is written, what it is, its paper, needs and cost."""
    if "broken" in row:
        return [sentence(f"{row['name']} is broken: {row['broken']}")]
    parameters = [
        f"{each['name']}={_written(each['default'])}" if "default" in each else each["name"]
        for each in row["parameters"]
    ]
    lines = [f"{row['name']}({', '.join(parameters)})" if parameters else row["name"]]
    facts = [row["paper"]]
    if row.get("needs"):
        pairs = row["needs"].items()
        facts.append(f"needs {', '.join(k if v is True else f'{k}={v}' for k, v in pairs)}")
    if "cost" in row:
        facts.append(_cost_words(row["cost"]))
    about = [row["sentence"], "; ".join(filter(None, facts))]
    return [*map(sentence, lines), *(f"    {sentence(each)}" for each in about if each)]


def _written(value: Any) -> str:
    """A default as a spec text has it, without quotes."""
    return f"({', '.join(map(_written, value))})" if isinstance(value, list) else str(value)


def _cost_words(cost: dict[str, Any]) -> str:
    """The cost in words; "" where nothing is known but that of the mix itself."""
    forward, backward = cost["more_forward_passes"], cost["more_backward_passes"]
    parts = [
        f"{forward} more forward pass{'es' * (forward > 1)}" if forward else "",
        f"{backward} more backward pass{'es' * (backward > 1)}" if backward else "",
        "a forward pass of another network" if cost["forward_passes_of_other_networks"] else "",
    ]
    words = " and ".join(filter(None, parts))
    ratio = cost["paper_ratio_to_cutmix"]
    paper = f"in the paper {ratio:.3f} of CutMix's speed" if ratio else ""
    return "; ".join(filter(None, [f"costs {words}" if words else "", paper]))
