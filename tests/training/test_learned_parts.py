"""Parameters of a strategy's own, as examples/learned_mask.py has them, in whole training runs."""

from pathlib import Path

import pytest
import torch

from mixbench import create_strategies, distributed
from mixbench.data.datasets import open_data
from mixbench.recipe import load_recipe
from mixbench.registry import load_plugin
from mixbench.runtime import Runtime
from mixbench.training.learner import extra_params_m
from mixbench.training.loop import train
from tests.support import kills
from tests.support.faults import KILLERS, PLUGIN
from tests.training.test_distributed import join, together

EXAMPLE = Path(__file__).parents[2] / "examples" / "learned_mask.py"
AT_TIMES = "alternate(first=learnedmask, second=cutmix, switch_prob=0.3)"
SMMIX = "alternate(first=smmix, second=cutmix, switch_prob=0.3)"
SMALL = {"embed_dim": 24, "depth": 1, "epochs": 1, "batch_size": 16, "micro_batch": 8}


def trained(specs, runtime=None, **options):
    """Learners after six steps."""
    options = SMALL | {"mix_prob": 1.0} | options
    data = open_data(image_size=32, limit_train=96, limit_val=10)
    runtime = runtime or Runtime(device=torch.device("cpu"))
    return train(create_strategies(specs), load_recipe("quick", options), data, runtime)


def logits(learner):
    """The mask's own parameters after training."""
    return learner.model.mixing.logits.detach()


def _train(rank, size, port, folder):
    """Train parts that a process uses in some steps alone, and save all weights."""
    load_plugin(EXAMPLE)
    runtime = join(rank, size, port)
    learners = trained(f"{AT_TIMES},{SMMIX}", runtime, weight_decay=0.5)
    torch.save([learner.model.state_dict() for learner in learners], f"{folder}/{size}-{rank}.pt")
    distributed.leave(runtime.world)


def test_two_processes_equal_one_that_uses_a_part_at_times(tmp_path):
    for size in (1, 2):
        together(_train, size, tmp_path)
    alone, *two = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert "mixing.first.logits" in alone[0] and "mixing.first.weight" in alone[1]
    for models in two:
        for mine, other in zip(alone, models, strict=True):
            for name, values in mine.items():
                assert torch.allclose(values, other[name], atol=1e-5), name


@pytest.fixture
def plugin():
    load_plugin(EXAMPLE)


@pytest.mark.usefixtures("plugin")
def test_a_part_is_in_optimizer_clip_and_average():
    slow = {"opt": "sgd", "lr": 1e-12, "min_lr": 1e-12, "warmup_lr": 1e-12}
    [still] = trained("learnedmask", **slow)
    [moved] = trained("learnedmask", model_ema=True)
    [clipped] = trained("learnedmask", opt="sgd", weight_decay=0.0, clip_grad=1e-9)
    assert not torch.equal(logits(moved), logits(still))
    torch.testing.assert_close(logits(clipped), logits(still), atol=1e-8, rtol=0)
    assert extra_params_m(moved.needs, moved.network) == 16 / 1e6
    average = moved.ema.module.mixing.logits
    assert not torch.equal(average, logits(moved)) and not torch.equal(average, logits(still))


@pytest.mark.usefixtures("plugin")
def test_written_weights_and_the_models_size_leave_a_part_out(tmp_path):
    options = ("--plugin", str(EXAMPLE), "--model-ema", "--headline", "ema")
    assert kills.run(tmp_path / "run", "cutmix,learnedmask", "0", *options)
    cutmix, learned = kills.figures(tmp_path / "run")
    assert cutmix["params_m"] == learned["params_m"]
    [weights] = (tmp_path / "run").glob("learnedmask*/seed0/last.pt")
    content = torch.load(weights, weights_only=True)
    for key in ("state_dict", "state_dict_ema"):
        assert content[key] and not [name for name in content[key] if "mixing" in name]


def test_a_killed_run_goes_on_with_its_part_and_the_others_as_without_it(tmp_path):
    options = ("--plugin", str(EXAMPLE), "--model-ema", "--clip-grad", "1")
    specs, out = f"cutmix,learnedmask,{AT_TIMES},smmix", tmp_path / "run"
    assert kills.run(tmp_path / "whole", specs, "0", *options)
    killer = tmp_path / "killer.py"
    killer.write_text(EXAMPLE.read_text() + PLUGIN + KILLERS["in a step"])
    assert not kills.run(out, specs, "0", "--plugin", str(killer), *options[2:])
    assert kills.run(out, specs, "0", *options)
    assert "resuming after epoch" in Path(f"{out}.txt").read_text()
    whole = kills.figures(tmp_path / "whole")
    assert kills.figures(out) == whole
    assert kills.run(tmp_path / "alone", "cutmix", "0", *options[2:])
    assert kills.figures(tmp_path / "alone") == whole[:1]
