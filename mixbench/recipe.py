"""The recipe: one flat, frozen dataclass with timm's names; command line over YAML over defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, get_type_hints

from mixbench.values import coerce, did_you_mean

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHOICES = {
    "compose": ("alternate", "only"),
    "augment_on": ("loader", "device"),
    "headline": ("raw", "ema"),
    "remode": ("const", "rand", "pixel"),
    "interpolation": ("bilinear", "bicubic"),
    "train_interpolation": ("bilinear", "bicubic", "random"),
}
POSITIVE = (
    "image_size",
    "batch_size",
    "epochs",
    "lr",
    "speed_image_size",
    "patch_size",
    "embed_dim",
    "depth",
    "num_heads",
)
MODEL_PARTS = ("patch_size", "embed_dim", "depth", "num_heads")
SHARES = (
    "drop_rate",
    "drop_path",
    "smoothing",
    "switch_prob",
    "mix_prob",
    "reprob",
    "hflip",
    "crop_pct",
    "model_ema_decay",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that changes a run's numbers, but the strategy, the data and the seed; the defaults are the fixed DeiT-S recipe."""

    model: str = "deit_small_patch16_224"
    image_size: int = 224
    patch_size: int | None = None  # these four: the model's own where None
    embed_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    drop_rate: float = 0.0
    drop_path: float = 0.1

    compose: str = "alternate"  # with Mixup, as DeiT's recipe does with CutMix; 'only' uses the strategy on every batch
    switch_prob: float = 0.5
    mixup_alpha: float = 0.8
    mix_prob: float = 1.0
    smoothing: float = 0.1

    batch_size: int = 1024
    micro_batch: int | str = "auto"
    epochs: int = 300
    cooldown_epochs: int = 10
    opt: str = "adamw"
    lr: float = 1e-3
    opt_eps: float = 1e-8
    opt_betas: tuple[float, float] = (0.9, 0.999)
    opt_fused: bool = True  # all parameters in one pass, where the optimizer can
    weight_decay: float = 0.03
    warmup_epochs: float = 20
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    lr_epoch_lag: int = 0
    sched_on_updates: bool = False
    clip_grad: float | None = None
    amp: bool = False  # bfloat16 autocast
    tf32: bool = False  # float32 products in TensorFloat-32, on a GPU
    gradient_amp: bool | None = (
        None  # the input gradient of Puzzle-Mix in bfloat16; as amp where None
    )
    compile: bool = False
    model_ema: bool = True
    model_ema_decay: float = 0.99996
    headline: str = "ema"
    seed: int = 42

    aa: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    reprob: float = 0.0
    remode: str = "pixel"
    recount: int = 1
    aug_repeats: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    train_interpolation: str = "random"
    hflip: float = 0.5
    augment_on: str = "loader"  # 'device': timm's draws, the loader's pixels. Differs: boxes are erased with other noise
    interpolation: str = "bicubic"
    crop_pct: float = 0.9
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    speed_model: str = "deit_small_patch16_224"  # what the speed part times, alone and in full
    speed_image_size: int = 224
    speed_batch_size: int | str = "auto"  # 128 on a GPU, 8 on a CPU
    speed_amp: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}"
                )
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        for name in ("micro_batch", "speed_batch_size"):
            value = getattr(self, name)
            if value != "auto" and (isinstance(value, str) or value < 1):
                raise ValueError(f"{name} must be 'auto' or a whole number above 0, not {value!r}")
        if isinstance(self.micro_batch, int) and self.batch_size % self.micro_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} must divide batch_size {self.batch_size}: take --micro-batch auto"
            )
        for name in (
            "weight_decay",
            "warmup_epochs",
            "cooldown_epochs",
            "min_lr",
            "warmup_lr",
            "aug_repeats",
            "lr_epoch_lag",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.headline == "ema" and not self.model_ema:
            raise ValueError("headline ema needs model_ema true: set model_ema, or headline raw")
        if (
            self.augment_on == "device"
            and self.aa
            and (self.aa.split("-")[0] != "rand" or "-t" in self.aa)
        ):
            raise ValueError(
                f"augment_on device knows timm's RandAugment of 15 operations, not aa {self.aa!r}: use augment_on loader"
            )
        for name, value in dataclasses.asdict(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{name} must be finite, not {number}")
        for name in ("mixup_alpha", "clip_grad", "opt_eps", "crop_pct", "std", "scale", "ratio"):
            value = getattr(self, name)
            if value is not None and not min(value if isinstance(value, tuple) else (value,)) > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be 0 or more and below 2**63, not {self.seed}")
        if self.recount < 1:
            raise ValueError(f"recount must be 1 or more, not {self.recount}")
        for name in ("smoothing", "drop_path", "drop_rate"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name} must be below 1, or nothing is learnt")
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be two numbers in order, not {low}, {high}")

    @property
    def total_epochs(self) -> int:
        """Epochs that are trained: the schedule's and the cool-down's."""
        return self.epochs + self.cooldown_epochs


HINTS: dict[str, Any] = get_type_hints(Recipe)


def config_dir() -> Path:
    """Where the shipped recipes lie: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def parse_value(name: str, value: Any) -> Any:
    """`value` (YAML's or a command line's text) as the type of field `name`; ValueError says what was expected."""
    import yaml

    hint = HINTS[name]
    if isinstance(value, str) and hint is not str:
        text = value
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            try:
                value = float(value)  # PyYAML reads 1e-3 as text
            except ValueError:
                value = text.split(",") if "," in text and "tuple" in str(hint) else value
    if isinstance(value, list):
        value = tuple(
            float(part) if isinstance(part, str) and _is_number(part) else part for part in value
        )
    return coerce(value, hint, name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def load_recipe(path: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe of a YAML file (a path, or the name of a shipped one) with `overrides` on top; ValueError for any mistake in it.

    The file's MODEL_PARTS are those of its model: they do not hold for another one that `overrides` names.
    """
    overrides = overrides or {}
    values = _read_yaml(_find(Path(path))) if path is not None else {}
    if overrides.get("model", values.get("model")) != values.get("model"):
        values = {name: value for name, value in values.items() if name not in MODEL_PARTS}
    values |= overrides
    return Recipe(**{name: parse_value(name, value) for name, value in values.items()})


def _find(path: Path) -> Path:
    shipped = config_dir() / (path.name if path.suffix else f"{path.name}.yaml")
    for candidate in (path, shipped):
        if candidate.is_file():
            return candidate
    known = [file.stem for file in config_dir().glob("*.yaml")]
    raise ValueError(f"recipe file not found: {path}; {did_you_mean(path.stem, known)}")


def _unique_keys(path: Path) -> Any:
    """YAML's safe loader, but for a key that stands twice: there the last would win silently."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise ValueError(f"recipe {path} gives {key} twice")
            return super().construct_mapping(node, deep)

    return Loader


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_keys(path)) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"recipe {path} must be a list of `name: value` lines")
    values = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in HINTS:
            raise ValueError(
                f"recipe {path} has an unknown key {key!r}: {did_you_mean(name, HINTS)}"
            )
        if name in values:
            raise ValueError(f"recipe {path} gives {name} twice")
        values[name] = value
    return values


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe as YAML that load_recipe reads back to an equal one."""
    import yaml

    values = {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()
    }
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def recipe_hash(recipe: Recipe, **data: Any) -> str:
    """Ten hex digits of what changes numbers: every field but the seed and the speed part's, and the data's description."""
    values = dataclasses.asdict(recipe)
    kept = {k: v for k, v in values.items() if k != "seed" and not k.startswith("speed_")}
    return hashlib.sha256(json.dumps([kept, data], sort_keys=True).encode()).hexdigest()[:10]
