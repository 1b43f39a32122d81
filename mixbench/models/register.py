"""Enters our networks in timm's registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_models() -> None:
    """Enter our networks in timm's registry, now if timm is imported, else as soon as it is."""
    if "timm" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


def _register() -> None:
    from mixbench.models import ca_swin, pvt  # noqa: F401  their @register_model does it


class _AfterTimm(MetaPathFinder):
    """Registers our networks at the end of `import timm`.

    timm (1.0.21 to 1.0.31) knows the models whose modules were imported: its registry is a
    dictionary that `register_model` fills, and it reads no entry points. That decorator cannot be
    had without `import timm`, hence torch, which would make `import mixbench` wait for seconds.
    Registering in our builder alone would leave `timm.create_model("pvt_small")` in anyone's loop
    without the model. So this finder lets the others find timm, adds one call after its loader, and
    leaves.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        specs = (
            finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self
        )
        spec = next(filter(None, specs), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
        return spec
