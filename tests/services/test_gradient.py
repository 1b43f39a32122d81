"""The gradient of the loss by the images."""

import torch
import torch.nn.functional as F

from mixbench.services.gradient import input_gradient


def test_input_gradient_is_the_gradient_and_leaves_no_trace():
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(12, 4)
    ).train()
    images, labels = torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 2])
    state = torch.random.get_rng_state()
    gradient = input_gradient(model, images, labels)
    weight, bias = model[2].weight, model[2].bias
    soft = (images.flatten(1) @ weight.T + bias).softmax(1) - F.one_hot(labels, 4)
    assert torch.allclose(gradient.flatten(1), (soft @ weight).detach() / 3, atol=1e-6)
    assert model.training and model[1].training and weight.grad is None and weight.requires_grad
    assert torch.equal(state, torch.random.get_rng_state())
