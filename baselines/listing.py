"""What listing an image folder of ImageNet's size costs, beside torchvision's and timm's readers.

python baselines/listing.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
LINKS = 60_000  # names a file: ext4 allows 65,000
SPLITS = ("train", "val")


def make_tree(root: Path, classes: int, train: int, val: int) -> None:
    """An image folder of so many classes, each of so many images, with names as ImageNet's.

    The files are links to a few, so that they take no room but that of their names.
    """
    made = 0
    for number in range(classes):
        name = f"n{1440764 + 37 * number:08d}"
        for split, count in (("train", train), ("val", val)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(count):
                original = root / f"original-{made // LINKS}"
                if made % LINKS == 0:
                    original.write_bytes(bytes(1000 + made // LINKS))
                file = (
                    f"{name}_{place * 7919 % 100_003}.JPEG"  # in no order
                    if split == "train"
                    else f"ILSVRC2012_val_{number * count + place + 1:08d}.JPEG"
                )
                os.link(original, folder / file)
                made += 1


def names_of_mixbench(root: Path) -> Any:
    """The names without the sizes, which no command does alone."""
    from mixbench.data.folders import Met, check_folder, image_names
    from mixbench.data.names import Names

    names, labels = Names(), list[int]()
    for split in SPLITS:
        for label, name in enumerate(check_folder(root)):
            images = image_names(root / split / name, Met())
            names.extend(f"{split}/{name}/{image}" for image in images)
            labels += [label] * len(images)
    return names, labels


def mixbench(root: Path) -> Any:
    """The names, and the sizes for the data's identity."""
    from mixbench.data.folders import open_folder

    return open_folder(root)


def index_of_mixbench(root: Path) -> Any:
    """The same from the index of an earlier dry run."""
    from mixbench.data.index import indexed_folder

    return indexed_folder(root)


def torchvision(root: Path) -> Any:
    """ImageFolder of each split."""
    from torchvision.datasets import ImageFolder

    return [ImageFolder(str(root / split)) for split in SPLITS]


def timm(root: Path) -> Any:
    """The reader of each split."""
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    return [ReaderImageFolder(str(root / split)) for split in SPLITS]


CASES: dict[str, Callable[[Path], Any]] = {
    "torchvision": torchvision,
    "torchvision again, the control": torchvision,
    "mixbench, names alone": names_of_mixbench,
    "mixbench, names and sizes": mixbench,
    "mixbench, a dry run's index": index_of_mixbench,  # of a tree that is large enough
    "timm": timm,
}
INDEXED = "mixbench, a dry run's index"
WORKED = ("torchvision", "mixbench, names and sizes")  # whose lists workers read


@dataclass(frozen=True)
class Listed:
    """One listing in a fresh process."""

    seconds: float  # of CPU
    kept: float  # MiB that the process has grown by
    peak: float  # MiB that it had grown by at most
    worker: float | None = None  # MiB that a forked process has of its own after an epoch, mean


def list_once(case: str, root: Path, workers: int) -> Listed:
    """List in this process; with `workers`, let as many forked ones go through an epoch."""
    CASES[case](root / "small")  # imports, and what is made once
    before, started = memory("VmRSS"), time.process_time()
    listed = CASES[case](root / "large")
    seconds = time.process_time() - started
    kept, peak = memory("VmRSS") - before, memory("VmHWM") - before
    worker = epoch(case, listed, workers) if workers else None
    return Listed(seconds, kept, max(kept, peak), worker)


def memory(field: str) -> float:
    """MiB of this process: in memory (VmRSS), or at most so far (VmHWM)."""
    return _of_system("status", field)


def private() -> float:
    """MiB of this process that it shares with no other."""
    return _of_system("smaps_rollup", "Private")


def _of_system(file: str, field: str) -> float:
    """The sum of the lines of /proc/self that begin with a field, in MiB."""
    lines = Path("/proc/self", file).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def epoch(case: str, listed: Any, workers: int) -> float:
    """What forked processes have of their own after reading all names and labels, mean in MiB.

    Each takes its share of a shuffled order, as the loader deals it.
    """
    import torch

    source = listed[0] if isinstance(listed, list) else listed.train
    count = len(source.samples if case == "torchvision" else source.labels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy().data
    readers, children = [], []
    for rank in range(workers):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            before = private()
            for place in range(rank, count, workers):
                if case == "torchvision":
                    source.samples[order[place]]
                else:
                    source.path(order[place]), source.labels[order[place]]
            os.write(writer, array("d", [private() - before]).tobytes())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
        children.append(child)
    grown = [array("d", os.read(reader, 8))[0] for reader in readers]
    for child in children:
        os.waitpid(child, 0)
    return statistics.mean(grown)


def in_a_process(case: str, root: Path, workers: int) -> Listed:
    """`list_once` in a process of its own, whose home is below `root`."""
    command = [sys.executable, str(Path(__file__)), "--case", case, "--tree", str(root)]
    command += ["--workers", str(workers)]
    environment = {**os.environ, "HOME": str(root / "home")}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), *sys.path])
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Listed(**json.loads(done.stdout))


def measure(root: Path, rounds: int, workers: int) -> dict[str, list[Listed]]:
    """Each case once a round, in the other order every other round; workers in the first alone."""
    in_a_process(INDEXED, root, 0)  # writes it, and warms the disk's cache
    there = any((root / "home").rglob("listing-*"))
    listed: dict[str, list[Listed]] = {case: [] for case in CASES if there or case != INDEXED}
    for number in range(rounds):
        for case in list(listed)[:: -1 if number % 2 else 1]:
            once = in_a_process(case, root, 0 if number or case not in WORKED else workers)
            listed[case].append(once)
            print(f"{case}: {once.seconds:.2f} s, {once.kept:.0f} MiB", flush=True)
    return listed


def page(
    listed: dict[str, list[Listed]], options: argparse.Namespace, command: str, date: str
) -> str:
    """What was measured, as Markdown."""
    from baselines.rounds import footer, ratios, spread
    from mixbench.runs.environment import device_name
    from mixbench.runtime import choose_device

    first = listed["torchvision"]
    lines = [
        f"# Listing an image folder, {date}",
        "",
        f"{options.classes:,} classes, {options.classes * options.train:,} + "
        f"{options.classes * options.val:,} files in a warm cache; each listing in a fresh",
        f"process, {len(first)} interleaved rounds, medians [least, most].",
        "",
        "| listing | CPU s | of torchvision's time | MiB kept | MiB at most |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case, each in listed.items():
        kept, peak = (
            statistics.median(values)
            for values in ([one.kept for one in each], [one.peak for one in each])
        )
        taken = [one.seconds for one in each]
        seconds = statistics.median(taken)
        ratio = spread(ratios(taken, [one.seconds for one in first]), 2)
        lines.append(f"| {case} | {seconds:.2f} | {ratio} | {kept:.0f} | {peak:.0f} |")
    worked = [(case, listed[case][0].worker) for case in WORKED]
    said = " and ".join(f"{mebibytes:.1f} ({case})" for case, mebibytes in worked)
    lines += [
        "",
        f"After an epoch each of {options.workers} forked processes has so many MiB more of its "
        f"own: {said}.",
        "",
        footer(f"`{command}`", device_name(choose_device("cpu"))),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Make a tree, measure, print the page and write it into the folder `results`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--classes", type=int, default=1000)
    add("--train", type=int, default=1281, help="training images a class")
    add("--val", type=int, default=50, help="validation images a class")
    add("--rounds", type=int, default=5)
    add("--workers", type=int, default=8)
    add("--case", help=argparse.SUPPRESS)  # in a process of its own
    add("--tree", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.case:
        print(json.dumps(asdict(list_once(options.case, options.tree, options.workers))))
        return
    from baselines.rounds import command_of, write_page
    from mixbench.runs.environment import today

    with tempfile.TemporaryDirectory(prefix="listing-") as folder:
        root = Path(folder)
        make_tree(root / "small", 2, 2, 2)
        make_tree(root / "large", options.classes, options.train, options.val)
        listed = measure(root, options.rounds, options.workers)
    names = ("classes", "train", "val", "rounds", "workers")
    command = command_of("listing", **{name: getattr(options, name) for name in names})
    write_page(results, "listing", page(listed, options, command, today()))


if __name__ == "__main__":
    main()
