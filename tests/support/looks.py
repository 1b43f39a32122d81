"""Class attention that a test chooses, in place of a model's own."""

import numpy as np
import torch

from mixbench.data.sources import Source
from mixbench.evaluations import class_maps
from mixbench.evaluations.evaluation import EvalImages, Subject
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.services.attention import ClassAttention

CPU = Runtime(device=torch.device("cpu"))
SMALL = {"image_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}


class Look(torch.nn.Module):
    """A model whose heads look where `seen` says: levels (B, 3, H, W) -> (B, heads, h, w)."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen


class LookTap:
    """The tap of a Look."""

    def __init__(self, model, recipe):
        self.model = model
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (recipe.mean, recipe.std))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def __call__(self, images):
        self.maps = self.model.seen(images * self.std + self.mean)

    def per_head(self):
        return self.maps


def channels(patch, *which):
    """Attention to the patches by how bright they are, a colour channel a head."""

    def seen(levels):
        maps = torch.nn.functional.avg_pool2d(levels[:, list(which)], patch)
        return torch.where(maps < 1e-3, 0.0, maps)

    return seen


def flat(levels):
    """One head that looks everywhere alike, at 8 x 8 patches."""
    return torch.ones(len(levels), 1, 8, 8)


def subject_of(monkeypatch, seen, **fields):
    """A subject that looks so; the untrained model beside it looks for itself."""
    recipe = load_recipe("quick", SMALL | fields)

    def tap(model):
        return LookTap(model, recipe) if isinstance(model, Look) else ClassAttention(model)

    monkeypatch.setattr(class_maps, "ClassAttention", tap)
    return Subject(spec="cutmix", model=Look(seen), recipe=recipe, classes=("a", "b"))


def values(result, metric):
    """A metric's figures by setting."""
    return {figure.setting: figure.value for figure in result.figures if figure.metric == metric}


def images_of(source: Source):
    """What an evaluation measures on."""
    return EvalImages(name="drawn", source=source, classes=())


def blank(height=32, width=32):
    """A black image."""
    return np.zeros((height, width, 3), np.uint8)
