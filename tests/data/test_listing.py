"""An image folder is listed as a plain walk would, and its identity is what it always was."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from mixbench.data import folders
from mixbench.data.folders import EXTENSIONS, listing_hash, open_classes, open_folder, open_split

ODD = [
    *(b"10.jpg", b"2.jpg", b"2.jpg.PNG", b"a/1.png", b"a.png", b"a b/c.gif", b"a/b/0.bmp"),
    *("中.jpg".encode(), "\U0001f600.jpg".encode(), "\ue000.jpg".encode(), b"\xff.png"),
    *(b"x\xfe/1.png", b"two\nlines.jpg", b"X.JPEG", b"\x1b[31m.tga", b" .jpg"),
]
LABELS = (b"10", b"9", b"b\xff", "é".encode())


@pytest.fixture
def odd(tmp_path):
    """An image folder of odd names; its files are of many sizes, and no pictures."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        for label in LABELS:
            for size, name in enumerate(ODD):
                path = Path(os.fsdecode(b"/".join([os.fsencode(root / split), label, name])))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes(7 * size + len(split)))
    (root / "train/10/notes.txt").write_text("")
    (root / "train/10/.hidden.png").write_text("")
    (root / "train/10/link.png").symlink_to("10.jpg")
    (root / "train/10/sub").symlink_to("../9")
    return root


def walked(root, split):
    """The names, labels and the hash of a split's images by os.walk and sorted."""
    names, labels = [], []
    for label, name in enumerate(sorted(os.listdir(root / split))):
        paths = [
            Path(folder, file).relative_to(root)
            for folder, _, files in os.walk(root / split / name, followlinks=True)
            for file in files
            if file[0] != "." and file.lower().endswith(EXTENSIONS)
        ]
        names += [path.as_posix() for path in sorted(paths, key=lambda path: path.parts)]
        labels += [label] * len(paths)
    text = "\n".join(f"{name} {(root / name).stat().st_size}" for name in names)
    return names, labels, hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def test_a_folder_is_listed_as_by_a_walk(odd):
    data = open_folder(odd)
    for split, source in (("train", data.train), ("val", data.val)):
        names, labels, digits = walked(odd, split)
        assert [source.image_name(index) for index in range(len(names))] == names
        assert (source.labels, source.fingerprint) == (labels, digits)
        assert all(source.path(index) == odd / name for index, name in enumerate(names))
    assert data.remarks == ("left out: 1 files that are no images by name (1 .txt)",)


def test_identities_are_those_of_earlier_runs(odd):
    """Frozen from the listing before names lay in one buffer; a run of then can go on."""
    (odd / "train/10/loop").symlink_to("..")
    identity = open_folder(odd).identity
    assert (identity.train_images, identity.val_images) == (129, 64)
    assert (identity.train, identity.val) == ("c8286c15b6c9bb5a", "bbbbf6178b5cdb39")
    assert open_split(odd, "val")[0].fingerprint == "bbbbf6178b5cdb39"
    assert open_split(odd / "val")[0].fingerprint == "9c4b840c5bdd28f6"
    assert open_classes(odd, "train", ["9", "10"]).fingerprint == "db5aabfbeee793d9"


def test_a_plain_folder_is_listed_as_by_torchvision(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=12, val=3, classes=("b", "a", "10", "9"))
    (root / "train/a/more").mkdir()
    (root / "train/b/0.jpg").rename(root / "train/a/more/0.jpg")
    data = open_folder(root)
    for split, source in (("train", data.train), ("val", data.val)):
        classes, numbers = find_classes(root / split)
        theirs = sorted(make_dataset(root / split, numbers, IMG_EXTENSIONS), key=_parts)
        ours = [(str(source.path(i)), label) for i, label in enumerate(source.labels)]
        assert ours == theirs and data.classes == tuple(classes)


def _parts(sample):
    return sample[1], Path(sample[0]).parts


@pytest.mark.parametrize("lines", [1, 3, 10, 11])
def test_a_hash_is_of_all_lines_at_once(lines, monkeypatch):
    monkeypatch.setattr(folders, "HASHED", lines)
    files = [(f"{number}\udcff\n", number) for number in range(10)]
    text = "\n".join(f"{name} {size}" for name, size in files)
    for some in (files, []):
        expected = hashlib.sha256(os.fsencode(text if some else "")).hexdigest()[:16]
        assert listing_hash(iter(some)) == expected


@pytest.mark.parametrize("root", ["set", "."])
def test_a_file_whose_size_is_refused_is_named(odd, root, monkeypatch):
    monkeypatch.chdir(odd.parent if root == "set" else odd)
    victim = str(Path(root) / "train" / "9" / "a" / "1.png")
    look = os.stat

    def refuses(path, **options):
        if os.fspath(path) == victim:
            raise PermissionError(13, "Permission denied", path)
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuses)
    with pytest.raises(ValueError) as caught:
        open_folder(Path(root))
    assert str(caught.value) == (
        f"cannot read {victim}: permission denied; make it readable, remove it, or choose another "
        "--data"
    )


def texts_of(thing, seen):
    """The texts that an object keeps, in lists, tuples, sets, dictionaries and attributes."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, str):
        return [thing]
    parts = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if isinstance(thing, Mapping):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        parts += list(thing)
    return [text for part in parts for text in texts_of(part, seen)]


def test_no_text_path_or_number_is_kept_for_an_image(tmp_path):
    """But the numbers of the classes; those below 257 are one object in all of Python."""
    for split in ("train", "val"):
        for label in range(300):
            (tmp_path / split / f"{label:03d}").mkdir(parents=True)
            for name in range(4):
                (tmp_path / split / f"{label:03d}" / f"{name}.png").touch()
    source = open_folder(tmp_path).train
    assert len(source.labels) == 1200 and len(texts_of(vars(source), set())) < 16
    assert len({id(label) for label in source.labels}) == 300
    memory = len(source.names.text) + source.names.ends.itemsize * len(source.names.ends)
    assert memory == 1200 * (len("train/000/0.png") + 8) + 8
