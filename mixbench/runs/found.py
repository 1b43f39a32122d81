"""The runs below a folder: what each is of, and whether it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mixbench.files import read_json
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import read_recipe_fields
from mixbench.runs.merge import Tables, read_tables, trained


def run_rows(folder: Path) -> list[dict[str, Any]]:
    """What each run directly below `folder` is of, and `folder` itself where it is one."""
    if not folder.is_dir():
        return []
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    return [_row(RunDirectory(path)) for path in (folder, *below) if _is_run(RunDirectory(path))]


def _is_run(run: RunDirectory) -> bool:
    files = run.recipe, run.environment, run.runs, run.speed, run.comparison
    return any(file.is_file() for file in files)


def _row(run: RunDirectory) -> dict[str, Any]:
    tables = _known(read_tables, run.path) or Tables([*run.results().values()], [])
    about = _known(read_json, run.environment)
    about = about if isinstance(about, dict) else {}
    asked = about.get("asked") or {}
    specs = [row.strategy for row in tables.runs] + [row.strategy for row in tables.speed]
    return {
        "directory": str(run.path),
        "recipe": asked.get("recipe"),
        "model": (_known(read_recipe_fields, run.recipe) or {}).get("model"),
        "strategies": list(dict.fromkeys([*asked.get("strategies", ()), *specs])),
        "seeds": sorted({*asked.get("seeds", ()), *(row.seed for row in tables.runs)}),
        "state": "running" if _in_use(run) else _state(run, asked, tables),
        "command": about.get("command"),
    }


def _state(run: RunDirectory, asked: Mapping[str, Any], tables: Tables) -> str:
    """`finished`, `failed` where a strategy has, `unfinished` where something asked is missing.

    Of an older run it is not known what was asked: then what was begun counts.
    """
    done = {(row.strategy, row.seed) for row in trained(tables.runs)}
    timed = {row.strategy for row in tables.speed}
    specs, mode = asked.get("strategies", ()), asked.get("mode", "")
    pairs = {(spec, seed) for spec in specs for seed in asked.get("seeds", ())}
    missing = {(row.strategy, row.seed) for row in tables.runs} - done
    missing |= pairs - done if mode != "speed" else set()
    untimed = {*specs} - timed if mode in ("speed", "both") else set()
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
