"""The recipe's fields as a careful reader of docs/recipe.md understands them."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.ends import ACCEPT, EITHER, REFUSE
from tests.fuzz.meanings import is_sure, looks_like

NULLS = ("null", "~", "Null", "NULL", "", "none", "None", " null ", "nil")


@dataclass(frozen=True)
class Field:
    """What a field takes: `right` values at most, and `sure` ones at least, beside `context`."""

    whole: bool
    right: Callable[[float], bool]
    sure: Callable[[float], bool]
    nullable: bool = False
    context: tuple[str, ...] = ()  # options beside which it can be as said
    word: str | None = None  # that stands for a number


def between(low: float, high: float) -> Callable[[float], bool]:
    """A rule that holds from `low` to `high`, both included."""
    return lambda number: low <= number <= high


def multiple(step: int, low: int, high: int) -> Callable[[float], bool]:
    """A rule that holds for multiples of `step` from `low` to `high`."""
    return lambda number: low <= number <= high and number % step == 0


def above_0(number: float) -> bool:
    """A rule that holds above 0."""
    return number > 0


def from_0(number: float) -> bool:
    """A rule that holds from 0 on."""
    return number >= 0


def below_1(number: float) -> bool:
    """A rule that holds from 0 to below 1."""
    return 0 <= number < 1


FREE = ("--warmup-lr", "0", "--min-lr", "0")
FIELDS = {  # beside `--config quick`: 32 px, patches of 8, 3 heads of 32, batch 64, 7 epochs
    "image_size": Field(True, above_0, multiple(32, 32, 512)),
    "patch_size": Field(True, above_0, lambda n: n in (8, 16), nullable=True),
    "embed_dim": Field(True, above_0, multiple(32, 32, 512), True, ("--num-heads", "2")),
    "depth": Field(True, above_0, between(1, 48), nullable=True),
    "num_heads": Field(True, above_0, lambda n: n in (1, 2, 3, 4, 6, 8), nullable=True),
    "drop_rate": Field(False, below_1, between(0, 0.9)),
    "drop_path": Field(False, below_1, between(0, 0.9)),
    "switch_prob": Field(False, between(0, 1), between(0, 1)),
    "mixup_alpha": Field(False, above_0, between(0.01, 100)),
    "mix_prob": Field(False, between(0, 1), between(0, 1)),
    "smoothing": Field(False, below_1, between(0, 0.9)),
    "batch_size": Field(
        True, above_0, multiple(2, 4, 4096), context=("--micro-batch", "auto"), word=None
    ),
    "micro_batch": Field(True, above_0, lambda n: n in (2, 4, 8, 16, 32, 64), word="auto"),
    "mix_group": Field(True, lambda n: n > 1, lambda n: n in (2, 4, 8, 16, 32, 64), word="auto"),
    "layer_decay": Field(False, lambda n: 0 < n <= 1, between(0.1, 1), nullable=True),
    "epochs": Field(True, above_0, between(1, 1000), context=("--warmup-epochs", "0")),
    "cooldown_epochs": Field(True, from_0, between(0, 1000)),
    "lr": Field(False, above_0, between(1e-5, 1), context=FREE),
    "opt_eps": Field(False, above_0, between(1e-10, 1e-3)),
    "weight_decay": Field(False, from_0, between(0, 1)),
    "warmup_epochs": Field(False, lambda n: 0 <= n < 7, between(0, 5)),
    "warmup_lr": Field(False, between(0, 1e-3), between(0, 5e-4)),
    "min_lr": Field(False, between(0, 1e-3), between(0, 5e-4)),
    "lr_epoch_lag": Field(True, from_0, lambda n: n == 0),
    "clip_grad": Field(False, above_0, between(0.01, 100), nullable=True),
    "model_ema_decay": Field(False, between(0, 1), between(0.1, 0.9999)),
    "seed": Field(True, lambda n: 0 <= n < 2**63, lambda n: 0 <= n < 2**63),
    "color_jitter": Field(False, from_0, between(0, 0.9)),
    "reprob": Field(False, between(0, 1), between(0, 1)),
    "recount": Field(True, lambda n: n >= 1, between(1, 10)),
    "aug_repeats": Field(True, from_0, lambda n: n == 0),
    "hflip": Field(False, between(0, 1), between(0, 1)),
    "crop_pct": Field(False, lambda n: 0 < n <= 1, between(0.5, 1)),
    "speed_image_size": Field(True, above_0, multiple(32, 32, 512), nullable=True),
    "speed_batch_size": Field(True, above_0, between(2, 256), word="auto"),
}


@dataclass(frozen=True)
class Tuple:
    """What a field of several numbers takes."""

    count: int
    right: Callable[[list[float]], bool]
    sure: Callable[[list[float]], bool]


def each(rule: Callable[[float], bool]) -> Callable[[list[float]], bool]:
    """A rule for every number of several."""
    return lambda numbers: all(map(rule, numbers))


def ordered(rule: Callable[[float], bool]) -> Callable[[list[float]], bool]:
    """A rule for every number of several, which do not fall."""
    return lambda numbers: all(map(rule, numbers)) and sorted(numbers) == numbers


TUPLES = {
    "opt_betas": Tuple(2, each(below_1), each(between(0.1, 0.999))),
    "scale": Tuple(2, ordered(lambda n: 0 < n <= 1), ordered(between(0.05, 1))),
    "ratio": Tuple(2, ordered(above_0), ordered(between(0.1, 10))),
    "mean": Tuple(3, each(lambda n: True), each(between(0, 1))),
    "std": Tuple(3, each(above_0), each(between(0.05, 1))),
}
WORDS = {
    "compose": ("alternate", "only"),
    "headline": ("raw", "ema"),
    "remode": ("const", "rand", "pixel"),
    "train_interpolation": ("bilinear", "bicubic", "random"),
    "augment_on": ("loader", "device"),
    "interpolation": ("bilinear", "bicubic"),
}
SWITCHES = ("opt_fused", "sched_on_updates", "amp", "tf32", "compile", "model_ema", "speed_amp")
TEXTS = ("model", "opt", "aa", "speed_model")


def expected(name: str, text: str) -> tuple[str, dict[str, object]]:
    """What is to become of a text for a field of one number, and what the recipe then says."""
    field = FIELDS[name]
    if text == field.word:
        return ACCEPT, {name: text}
    if field.nullable and text in NULLS:
        return (ACCEPT if text == "null" else EITHER), {name: None}
    number = looks_like(text)
    if field.word and text.strip("'\" \n\t") == field.word:
        return EITHER, {name: field.word}
    if number is None or number != number or not field.right(number):
        return REFUSE, {}
    if field.whole and number != int(number):
        return REFUSE, {}
    surely = is_sure(text, field.whole) and field.sure(number)
    return (ACCEPT if surely else EITHER), {name: number}


def expected_tuple(name: str, text: str) -> tuple[str, dict[str, object]]:
    """What is to become of a text for a field of several numbers, and what the recipe says."""
    rule, inner = TUPLES[name], text.strip()
    if len(inner) > 1 and inner[0] + inner[-1] in ("[]", "()"):
        inner = inner[1:-1]
    parts = inner.split(",")
    numbers = [looks_like(part) for part in parts]
    if len(parts) == rule.count + 1 and not parts[-1].strip():
        numbers, parts = numbers[:-1], parts[:-1]  # Python's and YAML's lists may end so
    if len(numbers) != rule.count or any(n is None or n != n for n in numbers):
        return REFUSE, {}
    if not rule.right(numbers):
        return REFUSE, {}
    surely = all(is_sure(part.lstrip(" "), False) for part in parts) and rule.sure(numbers)
    return (ACCEPT if surely and inner == text else EITHER), {name: numbers}
