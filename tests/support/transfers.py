"""Small networks that are transferred to a task on a CPU."""

import torch

from mixbench.recipe import Recipe
from mixbench.runtime import Runtime
from mixbench.transfer.candidates import Start
from mixbench.transfer.training import train_network

CPU = Runtime(device=torch.device("cpu"))
MODEL = Recipe(
    model="vit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2
)


class Stopped(Exception):
    pass


def stopped_at(text):
    """What a runtime says its lines to, which raises Stopped at the first that holds a text."""

    def say(line):
        if text in line:
            raise Stopped

    return say


def transferred(task, data, file, runtime=CPU, seed=0, model=MODEL):
    """A network of random weights after a task's training, whose state is kept in `file`."""
    network = task.network(Start(model=model, weights=None), data, seed)
    steps = task.training(network, data, model, seed, runtime)
    train_network(network, steps, seed, file, runtime, "vit")
    return network


def equal(one, two):
    """Whether two networks' weights are equal to the bit."""
    one, two = one.state_dict(), two.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def names_with_decay(network, optimizer, weight_decay):
    """The names of the parameters that an optimizer decays by so much."""
    decayed = {
        id(parameter)
        for group in optimizer.param_groups
        if group["weight_decay"] == weight_decay
        for parameter in group["params"]
    }
    return {name for name, each in network.named_parameters() if id(each) in decayed}
