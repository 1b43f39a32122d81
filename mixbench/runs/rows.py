"""The rows of a comparison: every column with its meaning, unit and digits, and the CSV files.

`runs.csv` holds a `RunRow` for each strategy and seed, `speed.csv` a `SpeedRow` for each timed
strategy, `comparison.csv` a `ComparisonRow` for each strategy, a seed's `log.csv` an `EpochRow`
for each epoch, and `evaluations.csv` an `EvaluationRow` for each figure of an evaluation.
Columns, documentation and tests follow from the dataclasses.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from os.path import lexists
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mixbench.files import read_json, replacing

SCHEMA_VERSION = 3  # rises when a column goes or changes its meaning, not when one is added
EXACT = 12  # digits of figures that are compared over seeds: fewer would break ties of their tests


# A spreadsheet would run a text that begins so; an apostrophe before it makes it text again.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
QUOTED = re.compile(r"'+[=+\-@\t\r]")


def column(
    meaning: str, *, unit: str = "", digits: int | None = 3, default: Any = None
) -> Any:  # as dataclasses.field, whose type is its default's
    """A column: what it says, in which unit, and to how many digits it is written (None: all)."""
    return field(default=default, metadata={"meaning": meaning, "unit": unit, "digits": digits})


def required(meaning: str) -> Any:
    """A column that every row has, written to all digits."""
    return column(meaning, default=MISSING, digits=None)


# Columns that several tables have in common.
STRATEGY = "the strategy as spec text; parameters at their defaults are left out"
STATUS = "`ok`, or what went wrong; a failed strategy does not stop the others"
ATTENTION = "the class attention that the strategy uses"
NETWORK = "the external network that the strategy uses"
EXTRA_PARAMS = "parameters that the strategy needs beside the model"
PRECISION = "`fp32`, `tf32` or `bf16`, and the input gradient's where `--gradient-amp` is another"
COMPILED = "whether the network, the loss and the deterministic part of each mix are compiled"
VERSIONS = "the versions that decide the numbers"
DATE = "when the row was made (UTC)"
SCHEMA = "the version of these columns; it rises when one goes or changes its meaning"
TRAIN_RATE = (
    "images per second of training with the loader: the strategy's own time and the wait for images"
)
TRAIN_SECONDS = (
    "time in the strategy's own steps of training, without loading, validation and writing"
)
COMPOSE = (
    "`alternate`: the strategy takes turns with Mixup, as in DeiT's recipe; `only`: it has every "
    "mixed batch"
)
HEADLINE = "which weights `top1` is of: `raw` or `ema` (averaged)"
NLL = "negative log-likelihood of the validation images; lower is better"
ECE = "expected calibration error over 15 equal bins of confidence; lower is better"
BRIER = (
    "Brier score of the validation images: the sum over all classes of (probability - one-hot)^2, "
    "0 to 2; lower is better"
)
LABEL_ERROR = (
    "on drawn scenes: the mean distance of `lam` from A's share of the object pixels that are "
    "visible"
)
OCCLUSION_DROP = (
    "top-1 lost with random patches black, mean over the levels; where `mixbench eval` measured it "
    "in one way"
)
SHUFFLE_DROP = "top-1 lost with shuffled cells, mean over the grids; as `occlusion_drop`"
PEAK_MEMORY = "most GPU memory of a timed step; empty on a CPU"
ROUNDS = "timed rounds, in which the strategies take turns"
RATE = "of mixing + forward + backward: median over the rounds"
RATE_LO = "lower end of its 95 % bootstrap interval"
RATE_HI = "upper end"
RATIO = "speed as a ratio to CutMix in the same round: median over the rounds"
CONTROL_LO = "CutMix timed against itself: lower end of the 95 % interval of its ratio"


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One strategy trained with one seed: a row of `runs.csv`."""

    strategy: str = required(STRATEGY)
    seed: int = required("the seed of initial weights, order, augmentation and mixing")
    status: str = column(STATUS, default="ok")
    compose: str | None = column(COMPOSE)
    dataset: str | None = column("name of the data set")
    drawn: bool | None = column("whether its images are the scenes that mixbench draws")
    train_images: int | None = column("training images")
    num_classes: int | None = column("classes")
    model: str | None = column("the trained model, as timm names it")
    weights: str | None = column(
        "what it started from: `random`, `pretrained` (timm's, of `model`'s tag) or a file's name"
    )
    weights_sha256: str | None = column("SHA-256 of that file")
    params_m: float | None = column("its parameters", unit="millions")
    extra_params_m: float | None = column(EXTRA_PARAMS, unit="millions")
    attention: str | None = column(ATTENTION)
    network: str | None = column(NETWORK)
    image_size: int | None = column("side of a training image", unit="pixels")
    batch_size: int | None = column("images an update")
    mix_group: int | None = column("images that shared one draw of the mixing")
    epochs: int | None = column("epochs trained, the cool-down included")
    headline: str | None = column(HEADLINE)
    top1: float | None = column("top-1 accuracy after the last epoch", unit="%", digits=EXACT)
    top5: float | None = column("top-5 accuracy after the last epoch", unit="%")
    top1_ema: float | None = column(
        "top-1 accuracy of the averaged weights", unit="%", digits=EXACT
    )
    nll: float | None = column(NLL, unit="nats", digits=4)
    ece: float | None = column(ECE, unit="%")
    brier: float | None = column(BRIER, digits=4)
    label_error: float | None = column(LABEL_ERROR, unit="points", digits=EXACT)
    occlusion_drop: float | None = column(OCCLUSION_DROP, unit="points", digits=EXACT)
    shuffle_drop: float | None = column(SHUFFLE_DROP, unit="points", digits=EXACT)
    train_seconds: float | None = column(TRAIN_SECONDS, unit="seconds")
    loading_share: float | None = column("share of the training time that waited for images")
    train_im_per_sec: float | None = column(TRAIN_RATE, unit="images/s")
    device: str | None = column("the processor that trained")
    precision: str | None = column(PRECISION)
    compiled: bool | None = column(COMPILED)
    recipe_hash: str | None = column(
        "ten digits that change with the recipe, the data, or anything else that changes numbers"
    )
    versions: str | None = column(VERSIONS)
    date: str | None = column(DATE)
    schema_version: int = column(SCHEMA, default=SCHEMA_VERSION)

    @property
    def of_scenes(self) -> bool:
        """Whether it was trained on drawn scenes; older rows say so by the data set's name."""
        return self.dataset == "scenes" if self.drawn is None else self.drawn


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One strategy timed beside the others: a row of `speed.csv`."""

    strategy: str = required(STRATEGY)
    status: str = column(STATUS, default="ok")
    attention: str | None = column(ATTENTION)
    network: str | None = column(NETWORK)
    extra_params_m: float | None = column(EXTRA_PARAMS, unit="millions")
    timed_model: str | None = column("the timed model, as timm names it")
    timed_params_m: float | None = column("its parameters", unit="millions")
    timed_image_size: int | None = column("side of a timed image", unit="pixels")
    timed_batch_size: int | None = column("images a timed step")
    timed_precision: str | None = column(PRECISION)
    im_per_sec: float | None = column(RATE, unit="images/s")
    im_per_sec_lo: float | None = column(RATE_LO, unit="images/s")
    im_per_sec_hi: float | None = column(RATE_HI, unit="images/s")
    ratio_to_cutmix: float | None = column(RATIO, digits=4)
    ratio_lo: float | None = column(RATE_LO, digits=4)
    ratio_hi: float | None = column(RATE_HI, digits=4)
    control_lo: float | None = column(CONTROL_LO, digits=4)
    control_hi: float | None = column(RATE_HI, digits=4)
    rounds: int | None = column(ROUNDS)
    peak_memory_mb: float | None = column(PEAK_MEMORY, unit="MiB")
    mix_ms: float | None = column("mixing in a timed step, median", unit="ms")
    forward_ms: float | None = column("forward pass and loss, median", unit="ms")
    backward_ms: float | None = column("backward pass, median", unit="ms")
    optimizer_ms: float | None = column("the update, in no rate above, median", unit="ms")
    device: str | None = column("the processor that was timed")
    compiled: bool | None = column(COMPILED)
    versions: str | None = column(VERSIONS)
    date: str | None = column(DATE)
    schema_version: int = column(SCHEMA, default=SCHEMA_VERSION)

    @property
    def timed(self) -> str:
        """What was timed, and where, in words; the machine alone where an old run says no more."""
        if self.timed_model is None:
            return str(self.device)
        return (
            f"{self.timed_model} at {self.timed_image_size} px, batch {self.timed_batch_size}, "
            f"{self.timed_precision}, {self.device}"
        )


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One strategy over its seeds, against the baseline, and its speed: a row of `comparison.csv`.

    Differences are paired by seed. Of several timings of the same model on the same machine the one
    with most rounds stands here; of others none, and `speed.csv` lists them.
    """

    strategy: str = required(STRATEGY)
    status: str = column(STATUS, default="ok")
    seeds: int | None = column("seeds that gave a figure")
    top1: float | None = column("top-1 accuracy, mean over the seeds", unit="%")
    top1_sd: float | None = column("its standard deviation over the seeds", unit="points")
    baseline: str | None = column("the strategy that the others are compared with")
    difference: float | None = column(
        "top-1 minus the baseline's with the same seed, mean", unit="points"
    )
    difference_lo: float | None = column(
        "lower end of its 95 % BCa bootstrap interval", unit="points"
    )
    difference_hi: float | None = column("upper end", unit="points")
    p: float | None = column("sign-flip test over the seeds, two-sided", digits=6)
    p_corrected: float | None = column("`p` by Holm's correction over `comparisons`", digits=6)
    comparisons: int | None = column(
        "comparisons that the correction is over: the file's, of two seeds or more"
    )
    verdict: str | None = column(
        "`higher`, `lower`, `not resolvable with n seeds`, `the baseline` or `nothing to compare`"
    )
    top5: float | None = column("top-5 accuracy, mean", unit="%")
    nll: float | None = column(NLL + "; mean", unit="nats", digits=4)
    ece: float | None = column(ECE + "; mean", unit="%")
    brier: float | None = column(BRIER + "; mean", digits=4)
    label_error: float | None = column(LABEL_ERROR + "; mean", unit="points")
    train_seconds: float | None = column(TRAIN_SECONDS + "; mean", unit="seconds")
    train_im_per_sec: float | None = column(TRAIN_RATE, unit="images/s")
    compose: str | None = column(COMPOSE)
    dataset: str | None = column("name of the data set")
    train_images: int | None = column("training images")
    num_classes: int | None = column("classes")
    model: str | None = column("the trained model, as timm names it")
    params_m: float | None = column("its parameters", unit="millions")
    image_size: int | None = column("side of a training image", unit="pixels")
    batch_size: int | None = column("images an update")
    epochs: int | None = column("epochs trained, the cool-down included")
    headline: str | None = column(HEADLINE)
    precision: str | None = column(f"of training: {PRECISION}")
    attention: str | None = column(ATTENTION)
    network: str | None = column(NETWORK)
    extra_params_m: float | None = column(EXTRA_PARAMS, unit="millions")
    timed_model: str | None = column("the timed model, as timm names it")
    timed_params_m: float | None = column("its parameters", unit="millions")
    timed_image_size: int | None = column("side of a timed image", unit="pixels")
    timed_batch_size: int | None = column("images a timed step")
    timed_precision: str | None = column(f"of what was timed: {PRECISION}")
    im_per_sec: float | None = column(RATE, unit="images/s")
    im_per_sec_lo: float | None = column(RATE_LO, unit="images/s")
    im_per_sec_hi: float | None = column(RATE_HI, unit="images/s")
    ratio_to_cutmix: float | None = column(RATIO, digits=4)
    ratio_lo: float | None = column(RATE_LO, digits=4)
    ratio_hi: float | None = column(RATE_HI, digits=4)
    control_lo: float | None = column(CONTROL_LO, digits=4)
    control_hi: float | None = column(RATE_HI, digits=4)
    rounds: int | None = column(ROUNDS)
    peak_memory_mb: float | None = column(PEAK_MEMORY, unit="MiB")
    speed_verdict: str | None = column(
        "`faster than CutMix` or `slower than CutMix` only where the ratio's interval lies outside "
        "the control band and 1; else `no difference shown`, or `the reference`"
    )
    compiled: bool | None = column(COMPILED)
    recipe: str | None = column(
        "in a report over several recipes the fields in which this differs from the others"
    )
    recipe_hash: str | None = column("of the trained rows, as in `runs.csv`")
    device: str | None = column("the processors that trained, or were timed")
    versions: str | None = column(VERSIONS)
    date: str | None = column("when the newest of its rows was made (UTC)")
    schema_version: int = column(SCHEMA, default=SCHEMA_VERSION)


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of one strategy and seed: a row of its `log.csv`, to all digits.

    An epoch without evaluation (`--val-interval`) has neither accuracies nor validation loss.
    """

    epoch: int = required("the epoch, from 0")
    lr: float = required("learning rate of the epoch's last update")
    train_loss: float = required("mean loss of the epoch's batches, nats")
    top1: float | None = column("top-1 accuracy of the raw weights", unit="%", digits=None)
    top5: float | None = column("top-5 accuracy of the raw weights", unit="%", digits=None)
    top1_ema: float | None = column("top-1 accuracy of the averaged weights", unit="%", digits=None)
    top5_ema: float | None = column("top-5 accuracy of the averaged weights", unit="%", digits=None)
    val_nll: float | None = column(
        "validation loss: mean negative log-likelihood of the raw weights", unit="nats", digits=None
    )
    val_nll_ema: float | None = column(
        "validation loss of the averaged weights", unit="nats", digits=None
    )
    seconds: float = required("seconds of the strategy's own steps so far")


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One figure that `eval` or `transfer` found of a strategy and seed, in evaluations.csv."""

    strategy: str = required(STRATEGY)
    seed: int = required("the seed that was trained with")
    evaluation: str = required("the evaluation's name")
    options: str = column("its options", default="")
    dataset: str = column("name of the images that it measures on", default="")
    data_hash: str = column("of their content", default="")
    labels: str = column("`true`, or `predicted`: the model's own on the clean image", default="")
    setting: str = column("what was measured under; empty for all there is", default="")
    metric: str = required(
        "what was measured; shares in 0..1, `label_error`, `bias` and drops in points; accuracies, "
        "errors, IoU, `aurra`, `aupr`, `mce` and what is of attention in percent"
    )
    value: float | None = column("the figure", digits=EXACT)
    value_lo: float | None = column(
        "of the figure that stands for the evaluation, where it is a mean over the images: lower "
        "end of its 95 % bootstrap interval over them",
        digits=6,
    )
    value_hi: float | None = column("upper end", digits=6)
    n: int | None = column("images or mixes that it is of")
    versions: str | None = column(VERSIONS)
    date: str | None = column(DATE)
    schema_version: int = column(SCHEMA, default=SCHEMA_VERSION)


Row = RunRow | SpeedRow | ComparisonRow | EpochRow | EvaluationRow
R = TypeVar("R", RunRow, SpeedRow, ComparisonRow, EpochRow, EvaluationRow)
KINDS = (RunRow, SpeedRow, ComparisonRow, EpochRow, EvaluationRow)
HINTS = {kind.__name__: get_type_hints(kind) for kind in KINDS}


def column_names(kind: type[Row]) -> tuple[str, ...]:
    """The columns of a table, in order."""
    return tuple(field.name for field in fields(kind))


def write_table(path: Path, kind: type[R], rows: Iterable[R]) -> None:
    """Write rows as CSV, whole or not at all; an empty cell is a figure that was not measured."""
    digits = {field.name: _digits(field) for field in fields(kind)}
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(digits)
        for row in rows:
            writer.writerow([_text(getattr(row, name), digits[name]) for name in digits])


def _digits(column: Field[Any]) -> int | None:
    return column.metadata["digits"]


def _text(value: Any, digits: int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and digits is not None:
        return "" if math.isnan(value) else str(round(value, digits))
    if isinstance(value, str):
        value = f"'{value}" if FORMULA.match(value) else value
        value = value.replace("\r", "\\r")  # which csv would leave bare
        return value.encode("utf-8", "backslashreplace").decode()
    return str(value)  # of a log, whose figures may be no numbers


def read_table(path: Path, kind: type[R]) -> list[R]:
    """The rows of a table; an empty cell is None, a column of a later version is passed over.

    ValueError where there is no such file, it lacks a column that every row has, or a cell or the
    file cannot be read.
    """
    if not lexists(path):
        raise ValueError(f"{path} not found: name the directory of a finished run")
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        return _read_table(path, kind)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _cell(text: Any) -> Any:
    """A cell as it was before the apostrophe that keeps it from being a formula."""
    return text[1:] if isinstance(text, str) and QUOTED.match(text) else text


def _read_table(path: Path, kind: type[R]) -> list[R]:
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    if "\0" in text:
        raise ValueError(f"{path} is no table: it holds a NUL character")
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        always = [field.name for field in fields(kind) if field.default is MISSING]
        lacking = [name for name in always if name not in names]
        if lacking:
            raise ValueError(f"{path} is no table of mixbench: it lacks {', '.join(lacking)}")
        rows = []
        for number, cells in enumerate(reader, 2):
            try:
                rows.append(row_of(kind, {name: _cell(text) for name, text in cells.items()}))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if not text.endswith("\n"):
        raise ValueError(f"{path} breaks off in its last line")
    return rows


def read_row(path: Path, kind: type[R], needed: Sequence[str] = ()) -> R:
    """The row that a JSON file holds, in which `needed` columns must stand.

    ValueError where there is none.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no row of mixbench: it is a {type(content).__name__}")
    lacking = [name for name in needed if name not in content]
    if lacking:
        raise ValueError(f"{path} is no row of mixbench: it lacks {', '.join(lacking)}")
    try:
        return row_of(kind, content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def row_of(kind: type[R], cells: Mapping[str, Any]) -> R:
    """A row from text or plain values by column.

    ValueError names a cell that cannot be read, or a column that the row must have.
    """
    always = [field.name for field in fields(kind) if field.default is MISSING]
    lacking = [name for name in always if cells.get(name) in (None, "")]
    if lacking:
        raise ValueError(f"{', '.join(lacking)} is missing")
    values = {}
    for name, hint in HINTS[kind.__name__].items():
        cell = cells.get(name)
        if cell is None or cell == "":
            continue
        values[name] = _value(name, cell, hint)
    return kind(**values)


def _value(name: str, cell: Any, hint: Any) -> Any:
    kinds = [part for part in getattr(hint, "__args__", (hint,)) if part is not type(None)]
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(cell).lower()]
        if isinstance(cell, list | dict) or (isinstance(cell, bool) and kind is not str):
            raise ValueError
        if kind is int:
            return _whole(cell)
        return kind(cell)
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{name} cannot be {str(cell)[:60]!r}") from None


def _whole(cell: Any) -> int:
    """A whole number; a float in between would lose digits of a large seed."""
    try:
        return int(cell) if isinstance(cell, int | str) else int(float(cell))
    except ValueError:
        return int(float(cell))  # 3.0 in a table that another program wrote


def plain(row: Row) -> dict[str, Any]:
    """A row as JSON has it: None where a figure was not measured or is not finite."""
    values = {name: getattr(row, name) for name in column_names(type(row))}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
