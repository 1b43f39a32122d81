"""The runs below a folder: what each is of, and whether it is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixbench.files import read_json
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import read_recipe_fields
from mixbench.runs.merge import Tables, read_command, read_tables, trained


def run_rows(folder: Path) -> list[dict[str, Any]]:
    """What each run directly below `folder` is of, and `folder` itself where it is one."""
    if not folder.is_dir():
        return []
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    return [_row(RunDirectory(path)) for path in (folder, *below) if _is_run(RunDirectory(path))]


def _is_run(run: RunDirectory) -> bool:
    files = run.recipe, run.environment, run.runs, run.speed, run.comparison
    return any(file.is_file() for file in files)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the last command in a directory was asked for; nothing where that is not known."""

    recipe: str | None = None
    strategies: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    mode: str = "accuracy"


def _row(run: RunDirectory) -> dict[str, Any]:
    tables = _known(read_tables, run.path) or Tables([*run.results().values()], [])
    asked = _known(_read_asked, run.environment) or Asked()
    specs = [row.strategy for row in tables.runs] + [row.strategy for row in tables.speed]
    return {
        "directory": str(run.path),
        "recipe": asked.recipe,
        "model": (_known(read_recipe_fields, run.recipe) or {}).get("model"),
        "strategies": list(dict.fromkeys([*asked.strategies, *specs])),
        "seeds": sorted({*asked.seeds, *(row.seed for row in tables.runs)}),
        "state": "running" if _in_use(run) else _state(run, asked, tables),
        "command": _known(read_command, run.environment),
    }


def _read_asked(path: Path) -> Asked:
    """What environment.json says that was asked for; ValueError where it does not."""
    try:
        asked = Asked(**read_json(path)["asked"])
        kinds = (str, asked.strategies), (int, asked.seeds), (str, [asked.recipe, asked.mode])
        if all(isinstance(each, kind) for kind, values in kinds for each in values):
            return asked
    except (KeyError, TypeError):
        pass
    raise ValueError(f"{path} does not say what was asked for")


def _state(run: RunDirectory, asked: Asked, tables: Tables) -> str:
    """`finished`, `failed` where a strategy has, `unfinished` where something asked is missing.

    Of an older run it is not known what was asked: then what was begun counts.
    """
    done = {(row.strategy, row.seed) for row in trained(tables.runs)}
    timed = {row.strategy for row in tables.speed}
    missing = {(row.strategy, row.seed) for row in tables.runs} - done
    if asked.mode != "speed":
        missing |= {(spec, seed) for spec in asked.strategies for seed in asked.seeds} - done
    untimed = {*asked.strategies} - timed if asked.mode != "accuracy" else set()
    begun = any(run.path.glob("state-seed*.pt")) or not (done or timed)
    if missing or untimed or begun:
        return "unfinished"
    statuses = {row.status for row in tables.runs} | {row.status for row in tables.speed}
    return "finished" if statuses == {"ok"} else "failed"


def _in_use(run: RunDirectory) -> bool:
    """Whether a process holds the directory, as far as that can be told."""
    try:
        return run.in_use
    except (OSError, ValueError):  # a lock that may not be read, a system without locks
        return False


def _known(read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` makes of a path; None where it is damaged or not there."""
    try:
        return read(path)
    except ValueError:
        return None
