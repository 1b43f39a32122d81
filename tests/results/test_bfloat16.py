"""Products are those of bfloat16 without a product in bfloat16."""

import pytest
import timm
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from results.bfloat16 import SummedInFloat32, main

SLOW = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def uniform(*shape):
    return torch.rand(shape).sub(0.5).requires_grad_()


class Bfloat16Products(TorchDispatchMode):
    """The names of the products whose operands are bfloat16."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [each for each in args if isinstance(each, torch.Tensor)]
        if (name in SLOW or "attention" in name) and tensors[0].dtype == torch.bfloat16:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


CASES = {
    "linear": (F.linear, (uniform(3, 20, 64), uniform(32, 64), uniform(32))),
    "convolution": (F.conv2d, (uniform(2, 3, 16, 16), uniform(8, 3, 4, 4), uniform(8), 4)),
    "matmul": (torch.Tensor.__matmul__, (uniform(2, 20, 64), uniform(2, 64, 20))),
    "einsum": (torch.einsum, ("bmd,bnd->bmn", uniform(2, 20, 64), uniform(2, 20, 64))),
    "attention": (F.scaled_dot_product_attention, [uniform(2, 4, 20, 16) for _ in range(3)]),
}


def product_and_gradients(function, operands, amp=True):
    """What a product gives, and each operand's gradient, as float64."""
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        result = function(*operands)
    tensors = [operand for operand in operands if isinstance(operand, torch.Tensor)]
    weights = torch.linspace(-1, 1, result.numel()).view(result.shape).bfloat16()
    gradients = torch.autograd.grad(result, tensors, weights.to(result.dtype))
    return [each.detach().double() for each in (result, *gradients)]


def rounded(operand):
    """An operand of bfloat16's numbers as float64, and what is no tensor."""
    is_tensor = isinstance(operand, torch.Tensor)
    return operand.detach().bfloat16().double().requires_grad_() if is_tensor else operand


@pytest.mark.parametrize("name", CASES)
def test_products_are_exact_ones_rounded_once(name):
    """Of float64's products of the rounded operands; no farther from them than torch's own."""
    function, operands = CASES[name]
    exact = product_and_gradients(function, list(map(rounded, operands)), amp=False)
    theirs = product_and_gradients(function, operands)
    with SummedInFloat32(), Bfloat16Products() as products:
        ours = product_and_gradients(function, operands)
    assert products.found == []
    for true, own, found in zip(exact, theirs, ours, strict=True):
        assert (found == true.bfloat16().double()).double().mean() > 0.99
        assert (found - true).norm() <= 1.01 * (own - true).norm()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_training_step_has_no_other_products(name, fused, monkeypatch):
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", int(fused))
    model = timm.create_model(name, num_classes=3).train()
    images = torch.rand(2, 3, *model.default_cfg["input_size"][1:])

    def found():
        with Bfloat16Products() as products:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(images).float().square().sum()
            loss.backward()
        return products.found

    assert len(found()) > 10
    with SummedInFloat32():
        assert found() == []
        assert torch.equal(model(images), model(images.clone()))  # without autocast as ever


def test_it_runs_a_command_and_has_its_status(capsys):
    assert main(["list"]) == 0
    assert "transmix" in capsys.readouterr().out
    assert main(["lst"]) == 2
