"""The rows of a running comparison, and the files that they go into."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import Screen
from mixbench.data.class_names import class_titles, read_class_names, write_class_names
from mixbench.files import replace_file
from mixbench.report.files import write_comparison
from mixbench.report.page import report_runs
from mixbench.report.tables import document, print_tables
from mixbench.runs.damage import mend
from mixbench.runs.directory import RunDirectory
from mixbench.runs.environment import environment
from mixbench.runs.merge import Tables, read_bitmap
from mixbench.runs.rows import SCHEMA_VERSION, RunRow, SpeedRow, read_table
from mixbench.runs.samples import Correct
from mixbench.runtime import Runtime
from mixbench.spec import strategy_spec


@dataclass
class Results:
    """The rows of this command, and the files that they and earlier commands' rows go into."""

    plan: Plan
    recipe_hash: str
    runs: list[RunRow] = field(default_factory=list)
    speed: list[SpeedRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.speed)

    @property
    def good(self) -> bool:
        """Whether no strategy failed."""
        rows: list[RunRow | SpeedRow] = [*self.runs, *self.speed]
        return all(row.status == "ok" for row in rows)

    @property
    def directory(self) -> RunDirectory:
        """Where the files are."""
        return RunDirectory(self.plan.out)

    def tables(self) -> Tables:
        """These rows, and what the directory holds of other strategies and seeds."""
        keys = {(row.strategy, row.seed) for row in self.runs}
        runs = self.runs + [
            row for row in self._earlier_runs() if (row.strategy, row.seed) not in keys
        ]
        timed = {row.strategy for row in self.speed}
        speed = self.speed + [row for row in self._earlier_speed() if row.strategy not in timed]
        return Tables(runs, speed)

    def _earlier_runs(self) -> list[RunRow]:
        """The finished rows of this recipe and data, and those that failed and stay so."""
        rows = self.directory.results(self.recipe_hash)
        if self.directory.runs.is_file() and (self.plan.resume or not self.plan.trains):
            for row in read_table(self.directory.runs, RunRow):
                if row.recipe_hash == self.recipe_hash:
                    rows.setdefault((row.strategy, row.seed), row)
        return list(rows.values())

    def _earlier_speed(self) -> list[SpeedRow]:
        """What was timed before, unless this command times anew."""
        if self.directory.speed.is_file() and (self.plan.resume or not self.plan.times):
            return read_table(self.directory.speed, SpeedRow)
        return []

    def begin(self, runtime: Runtime, classes: Sequence[str]) -> None:
        """Make ready for rows: damaged files are named, and what repeats the run is written."""
        if self.plan.resume and not self.directory.holds_results:
            runtime.say(f"nothing to resume in {self.plan.out}: the run begins")
        for sentence in mend(self.directory, self.recipe_hash):
            runtime.say(sentence)
        self._describe(runtime)
        self._name(classes)

    def _describe(self, runtime: Runtime) -> None:
        """Write what a reader needs to repeat the run."""
        about = environment(runtime.device) | {
            "schema_version": SCHEMA_VERSION,
            "command": self.plan.command,
            "asked": {
                "recipe": self.plan.config,
                "strategies": list(map(strategy_spec, self.plan.strategies)),
                "seeds": list(self.plan.seeds),
                "mode": self.plan.mode,
            },
            "processes": runtime.world.size,
        }
        replace_file(self.directory.environment, json.dumps(about, indent=1))

    def _name(self, classes: Sequence[str]) -> None:
        """Write what people call the classes, where that is not what their folders are called."""
        if self.plan.class_names is not None:
            titles = class_titles(classes, read_class_names(self.plan.class_names))
        else:
            titles = self.directory.class_titles(classes)
        named = {folder: title for folder, title in titles.items() if title != folder}
        if named:
            write_class_names(self.directory.class_names, named)

    def write(self) -> None:
        """Write every table, and the files that were asked for beside them."""
        tables = self.tables()
        summary = write_comparison(
            tables,
            self.directory,
            self.plan.command,
            correct=self.correct(tables),
            csv=self.plan.csv,
        )
        if self.plan.json:
            about = json.loads(self.directory.environment.read_text(encoding="utf-8"))
            content = document(tables, summary, self.plan.recipe, about)
            replace_file(self.plan.json, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def show(self, runtime: Runtime, screen: Screen) -> None:
        """Print the tables as they were written, and write the page."""
        tables = self.tables()
        print_tables(tables, screen.console, self.correct(tables))
        page = report_runs([self.plan.out], mixed_machines=True, say=runtime.say)
        files = (self.directory.runs, self.directory.speed, self.directory.markdown)
        names = ", ".join(file.name for file in files if file.is_file())
        runtime.say(f"wrote {self.directory.comparison}, {names} and {page.name}")

    def correct(self, tables: Tables) -> Correct:
        """Which validation images each trained row had right."""
        bitmaps = {
            (row.strategy, row.seed): read_bitmap(self.directory.seed(row.strategy, row.seed))
            for row in tables.runs
        }
        return {key: bitmap for key, bitmap in bitmaps.items() if bitmap is not None}
