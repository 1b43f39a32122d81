"""Loaders: which images of which epoch come to which process, and what they say of a bad file."""

import random
from itertools import chain

import numpy as np
import pytest
import torch

from mixbench.data.datasets import open_data
from mixbench.data.loaders import (
    EpochSampler,
    MicroBatches,
    TrainSet,
    eval_loader,
    readable,
    remark_on_copies,
    set_epoch,
    train_loader,
)
from mixbench.data.sources import Data, UnreadableImage, balanced
from mixbench.data.transforms import train_transform
from mixbench.distributed import World
from mixbench.mix import hashed_seed
from mixbench.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return open_data(image_size=8, limit_train=50, limit_val=11)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("quick", {"image_size": 8, "batch_size": 16, "micro_batch": 4})


def keys(data, recipe, epoch, world=World()):
    loader = train_loader(data, recipe, 5, 4, 0, CPU, world)
    set_epoch(loader, epoch)
    return list(loader.batch_sampler)


def test_an_epoch_is_the_samplers_in_whole_micro_batches(data, recipe):
    for epoch in (0, 3):
        sampler = EpochSampler(50, 5)
        sampler.epoch = epoch
        batches = keys(data, recipe, epoch)
        assert [len(batch) for batch in batches] == [4] * 12
        assert list(chain(*batches)) == list(sampler)[:48]
        assert {e for e, _, _ in chain(*batches)} == {epoch}
    assert [key[1:] for key in chain(*batches)] != [k[1:] for k in chain(*keys(data, recipe, 0))]


def test_processes_share_the_micro_batches_in_turn(data, recipe):
    whole = keys(data, recipe, 2)
    for size in (2, 5):
        dealt = [keys(data, recipe, 2, World(rank=rank, size=size)) for rank in range(size)]
        assert dealt == [whole[rank::size] for rank in range(size)]
        for rank in range(size):
            loader = train_loader(data, recipe, 5, 4, 0, CPU, World(rank=rank, size=size))
            assert len(loader) == len(dealt[rank])


def test_processes_share_the_validation_images_in_turn(data, recipe):
    for rank in range(3):
        loader = eval_loader(data.val, recipe, 0, CPU, World(rank=rank, size=3))
        labels = torch.cat([labels for _, labels in loader])
        assert labels.tolist() == data.val.labels[rank::3]


def test_fewer_images_than_a_batch_are_refused(data, recipe):
    few = load_recipe("quick", {"batch_size": 64})
    with pytest.raises(ValueError, match="batch_size 64 is larger than the 50 training images"):
        train_loader(data, few, 5, 4, 0, CPU)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence(photographs, tmp_path, recipe, workers):
    root = photographs(tmp_path / "data", train=10)
    victim = root / "val" / "b" / "1.png"
    victim.write_bytes(victim.read_bytes()[:100])
    loader = readable(eval_loader(open_data(data=root).val, recipe, workers, CPU))
    with pytest.raises(UnreadableImage) as caught:
        list(loader)
    assert str(caught.value).startswith(f"cannot read image {victim}: ")
    assert "\n" not in str(caught.value)


def test_augmentation_belongs_to_the_sample():
    data = open_data(image_size=32, limit_train=50)
    train_set = TrainSet(
        data.train, train_transform(load_recipe("deit_small_deit", {"image_size": 32})), 0
    )
    first = train_set[(0, 5, 0)][0]
    state = torch.random.get_rng_state()
    train_set[(0, 6, 0)]
    assert torch.equal(train_set[(0, 5, 0)][0], first) and torch.equal(
        torch.random.get_rng_state(), state
    )
    assert not torch.equal(train_set[(1, 5, 0)][0], first) and not torch.equal(
        train_set[(0, 5, 1)][0], first
    )


def states():
    """Python's, numpy's and torch's generator, as values that can be compared."""
    kind, numbers, *rest = np.random.get_state()
    return random.getstate(), kind, numbers.tolist(), rest, torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.5, "recount": 2},
        {"aa": "augmix-m5-w2-d2"},
        {"aa": None, "color_jitter": 0.4},
    ],
)
def test_a_sample_is_timms_transform_after_seeding(photographs, tmp_path, changes):
    """Bit for bit what ToTensor and Normalize make of it, with workers and without."""
    fields = {"image_size": 32, "batch_size": 4, "micro_batch": 4, **changes}
    recipe = load_recipe("deit_small", fields)
    source = open_data(data=photographs(tmp_path / "data", train=5)).train
    transform = train_transform(recipe)
    expected = []
    for epoch in (0, 1):
        order = torch.Generator().manual_seed(hashed_seed("order", 7, epoch))
        for index in torch.randperm(10, generator=order).tolist()[:8]:
            seed = hashed_seed("augment", 7, epoch, index, 0)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            expected.append(transform(source.load(index)))
    for workers in (0, 2):
        loader = train_loader(Data("d", source, source, ("a", "b")), recipe, 7, 4, workers, CPU)
        images = []
        for epoch in (0, 1):
            set_epoch(loader, epoch)
            images += [batch for batch, _ in loader]
        assert torch.equal(torch.cat(images), torch.stack(expected))


def test_the_generators_are_left_as_they_were(photographs, tmp_path):
    root = photographs(tmp_path / "data", train=4)
    recipe = load_recipe("deit_small_deit", {"image_size": 32})
    train_set = TrainSet(open_data(data=root).train, train_transform(recipe), 0)
    np.random.standard_normal()  # of the next draw a half is kept
    before = states()
    train_set.__getitems__([(0, 0, 0), (0, 1, 0)])
    assert states() == before
    (root / "train/a/2.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage):
        train_set.__getitems__([(0, 0, 0), (0, 2, 0)])
    assert states() == before


def test_the_order_of_a_million_images_is_eight_bytes_each():
    sampler = EpochSampler(1_300_000, 0)
    order = sampler.order()
    assert isinstance(order, memoryview) and order.nbytes == 8 * 1_300_000
    assert next(iter(sampler)) == (0, order[0], 0) and type(order[0]) is int


def micro_batches(count, micro_batch, size, aug_repeats):
    """The micro-batches of one epoch of each process, as lists of (sample, copy)."""
    return [
        [
            [(index, copy) for _, index, copy in keys]
            for keys in MicroBatches(
                EpochSampler(count, seed=0), micro_batch, World(rank, size), aug_repeats
            )
        ]
        for rank in range(size)
    ]


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_copies_of_an_image_are_dealt_as_timm_deals_them(size):
    from timm.data.distributed_sampler import RepeatAugSampler

    count, seed = 240, hashed_seed("order", 0, 0)
    for rank, batches in enumerate(micro_batches(count, 6, size, aug_repeats=3)):
        timms = RepeatAugSampler(range(count), size, rank, num_repeats=3, selected_round=0)
        timms.epoch = seed  # it seeds its generator with the epoch
        samples = [sample for keys in batches for sample, _ in keys]
        assert len(batches) == len(samples) // 6 == count // size // 6
        assert samples == [int(sample) for sample in timms][: len(samples)]
        if size >= 3:
            assert all(len({sample for sample, _ in keys}) == 6 for keys in batches)
    copies = [
        key for batches in micro_batches(count, 6, size, 3) for keys in batches for key in keys
    ]
    assert len(set(copies)) == len(copies)  # each has draws of its own


def test_no_row_is_mixed_with_a_copy_of_itself():
    """The partner is the mirrored row; with two processes half of the images have two copies in
    one of them, as in DeiT's code.
    """

    def with_a_copy(size):
        return sum(
            a == b and first != second
            for batches in micro_batches(240, 16, size, aug_repeats=3)
            for keys in batches
            for (a, first), (b, second) in zip(keys, reversed(keys), strict=True)
        )

    assert with_a_copy(3) == with_a_copy(4) == with_a_copy(8) == with_a_copy(1) == 0
    assert with_a_copy(2) > 0


def test_a_user_hears_what_becomes_of_the_copies():
    remarks = {size: remark_on_copies(3, World(size=size)) for size in (1, 2, 3, 8)}
    assert "one process no image is repeated" in remarks[1]
    assert "above the 2 processes" in remarks[2] and remarks[3] is remarks[8] is None
    assert remark_on_copies(0, World()) is remark_on_copies(1, World()) is None


def test_one_process_repeats_no_image():
    assert micro_batches(64, 8, 1, aug_repeats=3) == micro_batches(64, 8, 1, aug_repeats=0)
    plain = [index for _, index, _ in EpochSampler(600, seed=0)]
    assert sorted(plain) == list(range(600)) and plain != sorted(plain)


def test_subsets_are_class_balanced():
    source = balanced(open_data(image_size=32).train, 25)
    counts = torch.bincount(torch.tensor(source.labels), minlength=10)
    assert counts.sum() == 25 and counts.max() - counts.min() <= 1


def test_a_workers_traceback_is_left_out():
    def loader():
        yield 1
        raise UnreadableImage(
            "Caught UnreadableImage in DataLoader worker process 0.\nTraceback ...\n"
            "mixbench.data.sources.UnreadableImage: cannot read image x.png: no"
        )

    with pytest.raises(
        UnreadableImage, match=r"^cannot read image x\.png: no\n--check-data .* --skip"
    ):
        list(readable(loader()))


class Dealt:
    """A loader with so many processes, whose batches end with an error."""

    def __init__(self, error, num_workers=1):
        self.error, self.num_workers = error, num_workers

    def __iter__(self):
        yield "batch"
        raise self.error


DEATHS = (
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ConnectionResetError(104, "Connection reset by peer"),  # while it handed a batch over
    EOFError(),
)


@pytest.mark.parametrize("error", DEATHS, ids=lambda error: type(error).__name__)
def test_a_loader_process_that_dies_is_called_so(error):
    batches = readable(Dealt(error))
    assert next(batches) == "batch"
    with pytest.raises(ChildProcessError, match=r"^a loader process died \(.+\): lower --workers"):
        next(batches)


@pytest.mark.parametrize("error", DEATHS[1:], ids=lambda error: type(error).__name__)
def test_a_connection_of_this_process_or_of_a_data_set_is_not_a_loader_process(error):
    with pytest.raises(type(error)):
        list(readable(Dealt(error, num_workers=0)))
    caught = type(error)(f"Caught {type(error).__name__} in DataLoader worker process 0.")
    with pytest.raises((OSError, EOFError)) as raised:
        list(readable(Dealt(caught)))
    assert not isinstance(raised.value, ChildProcessError)
