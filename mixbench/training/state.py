"""The state of training on disk: what a killed run goes on from, logs and trained weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypedDict

import torch

from mixbench.data.sources import Data, DataIdentity
from mixbench.files import replacing
from mixbench.models.checkpoints import model_record
from mixbench.models.preprocessing import PREPROCESSING
from mixbench.recipe import Recipe, recipe_hash
from mixbench.runs.directory import RunDirectory
from mixbench.runs.identity import digest
from mixbench.runs.rows import EpochRow, write_table
from mixbench.runtime import Runtime, silent_line
from mixbench.training.batches import Sizes
from mixbench.training.learner import Learner, State
from mixbench.training.parts import without_part
from mixbench.visible import shortened

# At the end of the file, after what torch.save wrote: its own checksums leave out names and
# headers, whose damage it would pass over or raise anything for.
SEAL = b"\nsha256 "
SEAL_BYTES = len(SEAL) + hashlib.sha256().digest_size * 2
CHUNK = 2**20  # bytes that are read at once


class Kept(TypedDict):
    """The content of a state: what it is of, and how far each strategy came."""

    recipe_hash: str
    data: str  # `digest` of its identity
    sizes: dict[str, int]  # fields of Sizes
    threads: int
    learners: dict[str, State]  # by spec text; as many rows of log as epochs are done


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    sizes: Sizes | None = None  # None: to be chosen
    # strategies in the middle of training that this command does not train
    others: Mapping[str, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What a state is of."""

    recipe_hash: str
    data: str

    @classmethod
    def of(cls, recipe: Recipe, data: Data) -> Subject:
        """The subject of training with a recipe on data."""
        digits = recipe_hash(recipe, train=data.train.fingerprint, val=data.val.fingerprint)
        return cls(digits, digest(data.identity))


def keep(
    learners: Sequence[Learner], start: Start, sizes: Sizes, subject: Subject, runtime: Runtime
) -> None:
    """Keep the state of all after an epoch, and the state before it as a second file.

    A strategy that failed keeps the weights of its last good epoch, one that this command does not
    train its whole state.
    """
    if runtime.out is None or not runtime.first:
        return
    directory = RunDirectory(runtime.out)
    path = directory.state(runtime.seed)
    earlier: Mapping[str, Any] = {}
    if any(learner.failure for learner in learners) and sealed(path):
        earlier = _load(path)["learners"]
    states = dict(start.others)
    for learner in learners:
        if learner.failure:
            states[learner.spec] = earlier.get(learner.spec, {}) | learner.outcome()
        else:
            states[learner.spec] = learner.state()
    content = Kept(
        recipe_hash=subject.recipe_hash,
        data=subject.data,
        sizes=asdict(sizes),
        threads=torch.get_num_threads(),
        learners=states,
    )
    with replacing(path) as partial:
        torch.save(content, partial)
        seal(partial)
        if path.is_file():
            os.replace(path, directory.previous_state(runtime.seed))


def restore(
    learners: Sequence[Learner], recipe: Recipe, subject: Subject, runtime: Runtime
) -> Start:
    """Load the state that was kept, or the one before it where that is damaged; where to begin.

    The sizes are None where as many processes cannot share the batch by them. ValueError where
    the state is of another run, or of other strategies in the middle of training.
    """
    if runtime.out is None or not runtime.resume:
        return Start()
    directory = RunDirectory(runtime.out)
    path = _intact(directory, runtime)
    if path is None:
        return Start()
    kept = _load(path)
    _check(path, kept, learners, subject, runtime)
    for learner in learners:
        if learner.spec in kept["learners"]:
            learner.load(kept["learners"][learner.spec])
    if not any(learner.log or learner.failure for learner in learners):
        return Start()  # all that it holds is finished
    _tell(path, kept, learners, runtime)
    others: Mapping[str, State] = {}
    left = _unfinished(kept, runtime) - {learner.spec for learner in learners}
    if left:  # they stay in the file, not in memory
        stored = _load(path, mmap=True)["learners"]
        others = {spec: stored[spec] for spec in left}
    sizes = Sizes(**kept["sizes"])
    shared = recipe.batch_size % (sizes.micro_batch * runtime.world.size) == 0
    return Start(sizes if shared else None, others)


def begun(specs: Sequence[str], runtime: Runtime) -> set[str]:
    """The strategies that a resumed run is in the middle of training, which go on before others.

    ValueError where it is in the middle of strategies that are not among `specs`, and some of them
    are new to it.
    """
    if runtime.out is None or not runtime.resume:
        return set()
    path = _intact(RunDirectory(runtime.out), replace(runtime, say=silent_line))
    if path is None:
        return set()
    kept = _load(path, mmap=True)
    unfinished = _unfinished(kept, runtime)
    if unfinished - set(specs):
        _check_company(path, kept, specs, unfinished)
    return unfinished


def _intact(directory: RunDirectory, runtime: Runtime) -> Path | None:
    """The newest state that no process finds damaged; what is damaged is told."""
    paths = directory.states(runtime.seed)
    reasons: list[str] = []
    for path in paths:
        state = "damaged" if path.exists() else "missing"  # killed between two renames
        reason = runtime.world.agree(None if sealed(path) else f"{path} is {state}")
        if reason is None:
            if reasons:
                runtime.say(f"{reasons[0]}: going on from the state before it")
            return path
        reasons.append(reason)
    if any(path.exists() for path in paths):
        runtime.say(
            f"{' and '.join(reasons)}: what is not finished of seed {runtime.seed} begins anew"
        )
    return None


def _check(
    path: Path, kept: Kept, learners: Sequence[Learner], subject: Subject, runtime: Runtime
) -> None:
    """ValueError where the state is of another run, or in the middle of other strategies."""
    if (kept["recipe_hash"], kept["data"]) != (subject.recipe_hash, subject.data):
        raise ValueError(
            f"{path} is of another recipe or other data than this run: put the run's own state "
            "back, or choose another --out"
        )
    specs = [learner.spec for learner in learners]
    _check_company(path, kept, specs, _unfinished(kept, runtime))


def _check_company(path: Path, kept: Kept, specs: Sequence[str], unfinished: set[str]) -> None:
    """ValueError where strategies that are new to a state would join others in the middle."""
    new = [spec for spec in specs if spec not in kept["learners"]]
    if new and unfinished:
        raise ValueError(
            f"{path} is in the middle of training {_some(sorted(unfinished))}, and {_some(new)} "
            "cannot join: resume with the --strategies it has, then add others"
        )


def _some(names: Sequence[str]) -> str:
    """The first names of a list, short enough for a sentence."""
    shown = ", ".join(map(shortened, names[:2]))
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _unfinished(kept: Kept, runtime: Runtime) -> set[str]:
    """The strategies of a state whose row is not written."""
    assert runtime.out is not None
    directory = RunDirectory(runtime.out)
    return {
        spec for spec in kept["learners"] if not directory.seed(spec, runtime.seed).result.is_file()
    }


def _tell(path: Path, kept: Kept, learners: Sequence[Learner], runtime: Runtime) -> None:
    """Say after how many epochs training goes on, and that it may differ by rounding."""
    threads = torch.get_num_threads()
    if kept["threads"] != threads:
        runtime.say(
            f"{path} was made with {kept['threads']} threads, not {threads}: figures will differ "
            "by rounding"
        )
    epochs = {learner.spec: learner.epochs for learner in learners if learner.failure is None}
    if len(set(epochs.values())) > 1:
        each = ", ".join(f"{number} ({spec})" for spec, number in epochs.items())
        runtime.say(f"resuming after epoch {each}: those behind catch up first")
    else:
        runtime.say(f"resuming after epoch {max(epochs.values(), default=0)}")


def clear(specs: Sequence[str], runtime: Runtime) -> None:
    """Remove the state of a seed, unless it holds a strategy that no row is written of yet.

    `specs` have rows, of failures too.
    """
    if runtime.out is None or not runtime.first:
        return
    directory = RunDirectory(runtime.out)
    path = next(filter(sealed, directory.states(runtime.seed)), None)
    if path is None or not _unfinished(_load(path, mmap=True), runtime) - set(specs):
        directory.clear_state(runtime.seed)


# The file.


def seal(path: Path) -> None:
    """Append the checksum of a whole file."""
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        length = file.tell()
        file.seek(0)
        digits = _checksum(file, length)
        file.seek(0, os.SEEK_END)
        file.write(SEAL + digits.encode())


def sealed(path: Path) -> bool:
    """Whether a file is as it was when its checksum was appended."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END) - SEAL_BYTES
            if length < 0:
                return False
            file.seek(0)
            digits = _checksum(file, length)
            return file.read() == SEAL + digits.encode()
    except OSError:
        return False


def _checksum(file: IO[bytes], length: int) -> str:
    """SHA-256 of the next `length` bytes."""
    checksum = hashlib.sha256()
    while length > 0:
        part = file.read(min(CHUNK, length))
        if not part:
            break
        checksum.update(part)
        length -= len(part)
    return checksum.hexdigest()


def _load(path: Path, *, mmap: bool = False) -> Kept:
    """The content of a file that is `sealed`; ValueError where another mixbench wrote it."""
    kept = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    if not isinstance(kept, dict) or set(kept) != set(Kept.__annotations__):
        raise ValueError(f"{path} is a state of another version of mixbench: choose another --out")
    return Kept(**kept)  # type: ignore[typeddict-item]


def write_log(learner: Learner, runtime: Runtime) -> None:
    """Write the log anew: a killed run may have written rows that a resumed one writes again."""
    if runtime.out is not None and runtime.first:
        path = RunDirectory(runtime.out).seed(learner.spec, runtime.seed).log
        write_table(path, EpochRow, learner.log)


def write_weights(learner: Learner, recipe: Recipe, data: DataIdentity, runtime: Runtime) -> None:
    """Write the weights in a layout that timm.models.load_checkpoint reads."""
    if runtime.out is None or not runtime.first:
        return
    content: dict[str, Any] = {
        "state_dict": without_part(learner.model.state_dict()),
        "epoch": recipe.total_epochs,
        "strategy": learner.spec,
        "classes": list(data.classes),  # in the order of the logits
        "preprocessing": {
            name: list(value) if isinstance(value, tuple) else value
            for name in PREPROCESSING
            for value in [getattr(recipe, name)]
        },
        "data": {name: value for name, value in asdict(data).items() if name != "classes"},
    }
    content |= model_record(
        recipe.model,
        img_size=recipe.image_size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.embed_dim,
        depth=recipe.depth,
        num_heads=recipe.num_heads,
    )
    if learner.ema is not None and recipe.headline == "ema":
        content["state_dict_ema"] = without_part(learner.ema.module.state_dict())
    with replacing(RunDirectory(runtime.out).seed(learner.spec, runtime.seed).weights) as partial:
        torch.save(content, partial)
