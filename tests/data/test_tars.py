"""Tar files: the same data as the image folder that was packed, and what is refused."""

import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from mixbench.data.datasets import check_dataset, open_data
from mixbench.data.loaders import eval_loader
from mixbench.recipe import load_recipe

CLASSES = ("2", "10", "cat")


def pack(path, *folders, mode="w", name=lambda folder: f"./{folder.name}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for folder in folders:
            tar.add(folder, name(folder))
    return path


@pytest.fixture
def folder(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=4, val=3, classes=CLASSES)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    return root


def split(folder, name):
    return sorted((folder / name).iterdir(), reverse=True)


def pack_each(folder, out):
    for name, called in (("train", "train"), ("val", "test")):
        pack(out / f"{called}.tar", *split(folder, name))


def pack_split_folder(folder, out):
    for name in ("train", "val"):
        pack(out / f"{name}.tar", folder / name)


def pack_classes(folder, out):
    for name in ("train", "val"):
        for one in split(folder, name):
            pack(out / name / f"{one.name}.tar", one, name=lambda folder: ".")


def pack_tars_in_tar(folder, out):
    pack_classes(folder, out / "inner")
    for name in ("train", "val"):
        pack(out / f"{name}.tar", *split(out / "inner", name), name=lambda file: file.name)


@pytest.mark.parametrize("packed", [pack_each, pack_split_folder, pack_classes, pack_tars_in_tar])
def test_a_tar_is_the_folder_that_was_packed(folder, tmp_path, packed):
    packed(folder, tmp_path / "tars")
    data, expected = open_data(dataset=f"tar/{tmp_path / 'tars'}"), open_data(data=folder)
    assert data.identity == expected.identity
    assert (
        data.remarks[1:]
        == expected.remarks
        == ("left out: 1 files that are no images by name (1 .txt)",)
    )
    for source, of_folder in ((data.train, expected.train), (data.val, expected.val)):
        assert source.labels == of_folder.labels
        for index in range(len(source.labels)):
            assert source.image_name(index) == of_folder.image_name(index)
            assert source.content(index) == of_folder.content(index)
            assert source.load(index).tobytes() == of_folder.load(index).tobytes()
            assert source.size(index) == of_folder.size(index)


def test_images_and_classes_are_those_of_timms_reader(folder, tmp_path):
    pack_each(folder, tmp_path / "tars")
    data = open_data(dataset=f"tar/{tmp_path / 'tars'}")
    assert data.remarks[0] == "validates on the split 'test'"
    reader = ReaderImageInTar(str(tmp_path / "tars" / "train.tar"))
    theirs = {
        (reader.class_idx_to_name[label], file.read())
        for file, label in (reader[index] for index in range(len(reader)))
    }
    ours = {
        (data.classes[label], data.train.content(index))
        for index, label in enumerate(data.train.labels)
    }
    assert ours == theirs and len(ours) == 12


def test_processes_and_threads_read_equal_pixels(folder, tmp_path):
    pack_each(folder, tmp_path / "tars")
    data = open_data(dataset=f"tar/{tmp_path / 'tars'}")
    alone = [data.train.load(index).tobytes() for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda index: data.train.load(index % 12).tobytes(), range(120)))
    assert images == alone * 10
    recipe, cpu = load_recipe("quick"), torch.device("cpu")
    data.train.labels *= 8
    data.train.members = [*data.train.members] * 8
    loaded = [
        torch.cat([images for images, _ in eval_loader(data.train, recipe, workers, cpu)])
        for workers in (0, 2)
    ]
    assert len(loaded[0]) == 96 and torch.equal(*loaded)


def cut(tar):
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content.rstrip(b"\0")) // 2 // 512 * 512 + 100])


def overwrite_header(tar):
    with tarfile.open(tar) as file:
        start = file.getmembers()[-2].offset
    content = bytearray(tar.read_bytes())
    content[start : start + 512] = b"x" * 512
    tar.write_bytes(content)


def compress(tar):
    with tarfile.open(tar, "w:gz"):
        pass


@pytest.mark.parametrize("damage", [cut, overwrite_header, compress])
def test_a_damaged_tar_is_named(folder, tmp_path, damage):
    pack_each(folder, tmp_path / "tars")
    damage(tmp_path / "tars" / "train.tar")
    with pytest.raises(ValueError, match=r"train.tar is damaged, or no tar file without compr"):
        open_data(dataset=f"tar/{tmp_path / 'tars'}")


def test_what_is_no_data_set_is_refused(folder, tmp_path):
    root = tmp_path / "tars"
    with pytest.raises(ValueError, match="data directory not found"):
        check_dataset(f"tar/{root}")
    pack(root / "train.tar", *split(folder, "train"))
    with pytest.raises(ValueError, match="has no validation images in tar files"):
        check_dataset(f"tar/{root}")
    pack(root / "val.tar", folder / "val" / "cat", folder / "val" / "2")
    with pytest.raises(ValueError, match="different classes: '10' is in train/ alone"):
        open_data(dataset=f"tar/{root}")
    (folder / "val" / "cat" / "link.png").symlink_to("1.png")
    pack(root / "val.tar", *split(folder, "val"))
    with pytest.raises(ValueError, match=r"cat/link.png of .*val.tar is a link"):
        open_data(dataset=f"tar/{root}")


def test_of_a_path_that_is_there_twice_the_last_counts(folder, tmp_path):
    """`tar -r` and `tar -u` append what has changed, and unpacking keeps it."""
    pack_each(folder, tmp_path / "tars")
    changed = folder / "train" / "cat" / "0.jpg"
    changed.write_bytes((folder / "train" / "cat" / "3.jpg").read_bytes())
    pack(tmp_path / "tars" / "train.tar", changed, mode="a", name=lambda file: f"./cat/{file.name}")
    data, unpacked = open_data(dataset=f"tar/{tmp_path / 'tars'}"), open_data(data=folder)
    assert data.identity == unpacked.identity
    index = unpacked.train.names[:].index("train/cat/0.jpg")
    assert data.train.load(index).tobytes() == unpacked.train.load(index).tobytes()


@pytest.mark.parametrize("content", ["notes", "nothing"])
@pytest.mark.parametrize("packed", [pack_each, pack_split_folder])
def test_a_class_folder_without_images_is_named_as_unpacked(content, packed, folder, tmp_path):
    for name in ("train", "val"):
        (folder / name / "zebra").mkdir()
        if content == "notes":
            (folder / name / "zebra" / "notes.txt").write_text("no image")
    packed(folder, tmp_path / "tars")
    for given in ({"data": folder}, {"dataset": f"tar/{tmp_path / 'tars'}"}):
        with pytest.raises(ValueError, match=r"class folder .*zebra.* holds no images \(\.jpg"):
            open_data(**given)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wds/shards", "is an iterable source: it has no item of a number"),
        ("tfds/mnist", "tar/DIR or hfds/NAME"),
        ("cifra10", "did you mean 'cifar10'"),
        ("hdfs/x", "did you mean 'hfds/...'"),
        ("torch/mnits", "did you mean 'torch/mnist'"),
        ("torch/imagenet", "lies in folders of images"),
        ("tar/", "must be tar/DIR"),
    ],
)
def test_names_that_are_refused(name, words):
    with pytest.raises(ValueError, match=words):
        check_dataset(name)
