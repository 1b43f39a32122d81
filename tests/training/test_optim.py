"""Optimizers that can train, and those that cannot."""

import pytest
import torch

from mixbench.recipe import load_recipe
from mixbench.training.optim import check_optimizer


@pytest.mark.parametrize(
    "opt", ["adamw", "sgd", "lamb", "lion", "nesterov", "rmsprop", "lookahead_adamw", "adafactor"]
)
def test_what_takes_a_step_is_right(opt):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    check_optimizer(load_recipe("deit_small", {"opt": opt}))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("adamww", "^unknown optimizer 'adamww': did you mean"),
        ("lbfgs", "^unknown optimizer 'lbfgs'"),
        ("x" * 10**5, "^unknown optimizer 'xxx"),
        ("adahessian", "^opt adahessian cannot train here .*choose another, such as adamw"),
        ("adan", "^opt adan cannot train here"),  # it has three betas
        ("bnbadam8bit", "^opt bnbadam8bit cannot train here"),  # its package is not installed
        ("lookahead_", "^unknown optimizer 'lookahead_'"),
        ("lookahead_lookahead_sgd", "^unknown optimizer|cannot train here"),
    ],
)
def test_what_cannot_train_is_refused_with_the_way_out(opt, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_optimizer(load_recipe("deit_small", {"opt": opt}))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
