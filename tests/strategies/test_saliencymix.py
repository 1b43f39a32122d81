"""SaliencyMix against its rules."""

import numpy as np
import pytest
import torch

from mixbench import create_strategy, step_rng
from mixbench.mix import beta, cut_box, randint
from mixbench.services.saliency import fine_grained, official_saliency
from mixbench.testing import check_strategy
from tests.support.pictures import mix, normalised, opencv_detector, scene, tiny_network


@pytest.fixture(scope="module")
def detector():
    return opencv_detector()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("weights"))


def drawn(count, size, step=0, alpha=1.0):
    rng = step_rng(0, step)
    return [
        (beta(rng, alpha), (randint(rng, size[0]), randint(rng, size[1]))) for _ in range(count)
    ]


def box_of(mask):
    rows, cols = torch.where(mask == 0)
    return (
        (int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
        if len(rows)
        else None
    )


@pytest.mark.parametrize(
    "spec",
    [
        "saliencymix",
        "saliencymix(scope=batch)",
        "saliencymix(source=official)",
        "transmix(base=saliencymix)",
    ],
)
def test_saliencymix_passes_the_kit(spec):
    check_strategy(create_strategy(spec))


def test_opencv_source_gives_the_same_batch(detector):
    images = normalised(scene((48, 64), 5))
    for step in range(3):
        ours, theirs = (
            mix(f"saliencymix(source={source})", images, step=step)
            for source in ("uint8", "opencv")
        )
        assert ours.images.equal(theirs.images) and ours.mask.equal(theirs.mask)


@pytest.mark.parametrize("source", ["uint8", "official"])
def test_each_box_is_cutmix_around_the_partners_peak(source):
    pixels = scene((48, 64), 5)
    images = normalised(pixels)
    saliency = fine_grained(pixels) if source == "uint8" else official_saliency(images)
    peaks = [
        divmod(int(np.argmax(image)), 64) for image in saliency.numpy()
    ]  # numpy takes the first
    for step in range(6):
        mixed = mix(f"saliencymix(source={source})", images, step=step)
        assert mixed.mask.shape == (5, 1, 48, 64)
        for row, (lam, _) in enumerate(drawn(5, (48, 64), step)):
            top, left, bottom, right = cut_box(48, 64, lam, peaks[4 - row])
            assert box_of(mixed.mask[row, 0]) in (None, (top, left, bottom, right))
            assert float(mixed.lam[row]) == pytest.approx(
                1 - (bottom - top) * (right - left) / (48 * 64), abs=1e-6
            )
            assert mixed.images[row].equal(
                torch.where(mixed.mask[row].bool(), images[row], images[4 - row])
            )


def test_one_box_a_batch_is_around_the_peak_of_what_the_first_gets():
    pixels = scene((48, 64), 5)
    lam, _ = drawn(1, (48, 64))[0]
    mixed = mix("saliencymix(scope=batch)", normalised(pixels))
    peak = divmod(int(fine_grained(pixels)[4].argmax()), 64)
    assert mixed.mask.shape == (1, 1, 48, 64) and box_of(mixed.mask[0, 0]) == cut_box(
        48, 64, lam, peak
    )


@pytest.mark.parametrize(
    ("scope", "twin"), [("sample", "cutmix(per_sample=True)"), ("batch", "cutmix")]
)
def test_flat_images_are_cut_as_cutmix_does(scope, twin):
    images = (
        normalised(torch.full((4, 3, 30, 20), 90, dtype=torch.uint8))
        + torch.arange(4.0).reshape(4, 1, 1, 1) * 0.001
    )
    for step in range(10):
        ours = mix(f"saliencymix(scope={scope})", images, step=step)
        cutmix = mix(twin, images, step=step)
        assert ours.mask.equal(cutmix.mask) and ours.images.equal(cutmix.images)


def test_flat_and_other_images_in_one_batch():
    pixels = scene((32, 32), 4)
    pixels[1] = 77
    mixed = mix("saliencymix", normalised(pixels), step=3)
    lam, center = drawn(4, (32, 32), 3)[2]
    assert box_of(mixed.mask[2, 0]) == cut_box(32, 32, lam, center), "row 2 gets the flat image 1"


def test_an_inf_never_reaches_its_partner():
    pixels, images = scene((32, 32), 2), normalised(scene((32, 32), 2))
    images[0] = torch.inf
    for spec in ("saliencymix", "attentivecutmix"):
        mixed = mix(spec, images, pixels=pixels, features=lambda x: torch.rand(2, 1, 7, 7))
        first = mixed.mask[1].bool().expand(3, 32, 32)
        assert mixed.images[1][first].isfinite().all() and mixed.images[1][~first].isinf().all()


def test_a_single_image_mixes_with_itself(checkpoint):
    images = normalised(scene((32, 48), 1))
    for strategy in (
        "saliencymix",
        "saliencymix(scope=batch)",
        f"attentivecutmix(network={checkpoint!r})",
    ):
        mixed = mix(strategy, images)
        assert mixed.images.equal(images) and mixed.partner.tolist() == [0]


def test_mixes_run_on_a_device_without_values():
    meta = torch.empty(5, 3, 32, 32, device="meta")
    for strategy in ("saliencymix", "saliencymix(scope=batch)", "saliencymix(source=official)"):
        mixed = mix(strategy, meta, pixels=meta.byte())
        assert mixed.images.device.type == "meta"
    mixed = mix("attentivecutmix(k=beta)", meta, features=lambda x: meta.new_empty(5, 8, 7, 7))
    assert mixed.images.shape == meta.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_and_is_not_waited_for(checkpoint):
    pixels = scene((96, 64), 6)
    images = normalised(pixels)
    strategies = [
        "saliencymix",
        "saliencymix(scope=batch)",
        f"attentivecutmix(network={checkpoint!r})",
    ]
    ours = [mix(strategy, images) for strategy in strategies]
    for again in (False, True):  # the first call builds the network, and may wait
        torch.cuda.set_sync_debug_mode("error" if again else "default")
        try:
            theirs = [
                mix(strategy, images.cuda(), torch.arange(6).cuda()) for strategy in strategies
            ]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(fine_grained(pixels.cuda()).cpu(), fine_grained(pixels))
    for mixed, other in zip(ours, theirs, strict=True):
        assert torch.equal(mixed.mask, other.mask.cpu())
        assert torch.equal(mixed.images, other.images.cpu())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("saliencymix(alpha=0)", "above 0"),
        ("saliencymix(scope=image)", "sample, batch, not 'image'"),
        ("saliencymix(source=cv)", "uint8, opencv, official"),
        ("attentivecutmix(k=-1)", r"number between 0 and 2\*\*16, not -1"),
        ("attentivecutmix(k=all)", r"'beta' or a whole number .*, not 'all'"),
        ("attentivecutmix(channel=first)", "mean, last"),
        ("attentivecutmix(dtype=half)", "float32, bfloat16"),
        ("attentivecutmix(network='')", "must not be empty"),
    ],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        create_strategy(text)
