"""What a process shares among all strategies: torch's settings, and the global generators.

A strategy from outside may change them; what it changed is put back and named.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mixbench.rules import require


@dataclass(frozen=True)
class Setting:
    """A setting that is everyone's: how it is read and how it is put back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _of(holder: Any, attribute: str, name: str) -> Setting:
    return Setting(
        name,
        lambda: getattr(holder, attribute),
        lambda value: setattr(holder, attribute, value),
    )


def _autocast(device: str) -> Iterator[Setting]:
    yield Setting(
        f"autocast on {device}",
        lambda: torch.is_autocast_enabled(device),
        lambda value: torch.set_autocast_enabled(device, value),
    )
    yield Setting(
        f"the dtype of autocast on {device}",
        lambda: torch.get_autocast_dtype(device),
        lambda value: torch.set_autocast_dtype(device, value),
    )


_inference: list[Any] = []  # a context that is left undoes what it did


def _write_inference(value: bool) -> None:
    _inference.append(torch.inference_mode(value))
    _inference[-1].__enter__()


def _write_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _write_numpy(errors: Any) -> None:
    np.seterr(**errors)


SETTINGS = (
    Setting("inference mode", torch.is_inference_mode_enabled, _write_inference),
    Setting("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("torch's default device", torch.get_default_device, _write_device),
    *_autocast("cpu"),
    *_autocast("cuda"),
    Setting(
        "torch's deterministic mode",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    Setting("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting(
        "the precision of float32 products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    *(
        _of(torch.backends.cudnn, name, f"cudnn.{name}")
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ),
    *(
        Setting(
            f"{name} attention",
            getattr(torch.backends.cuda, f"{name}_sdp_enabled"),
            getattr(torch.backends.cuda, f"enable_{name}_sdp"),
        )
        for name in ("flash", "mem_efficient", "math")
    ),
    Setting("numpy's handling of errors", np.geterr, _write_numpy),
    Setting("the working directory", os.getcwd, os.chdir),
)


FRESH = {  # what the settings are that matter most, where torch was just imported
    "inference mode": False,
    "gradient mode": True,
    "torch's default dtype": torch.float32,
    "torch's default device": torch.device("cpu"),
}


def settings() -> dict[str, Any]:
    """What all SETTINGS are now, by name."""
    return {setting.name: _read(setting) for setting in SETTINGS}


def _read(setting: Setting) -> Any:
    try:
        return setting.read()
    except (RuntimeError, OSError) as error:  # two ways of saying a precision, a removed directory
        return type(error).__name__


def put_back(before: Mapping[str, Any]) -> list[str]:
    """Put back the settings that differ from `before`; what they were and are, in words."""
    changed = []
    for setting in SETTINGS:
        if setting.name not in before:
            continue
        old, new = before[setting.name], _read(setting)
        if new != old:
            with suppress(Exception):  # the sentence says what is changed, whatever comes of it
                setting.write(old)
            changed.append(f"{setting.name} ({old}, not {new})")
    return changed


@contextmanager
def settings_stay(method: str) -> Iterator[None]:
    """Put back every setting that is changed inside; BrokenRule where one was, and no error."""
    before = settings()
    try:
        yield
    except BaseException:
        put_back(before)
        raise
    require_as_before(before, method)


def require_as_before(before: Mapping[str, Any], method: str) -> None:
    """Put the settings back; BrokenRule where one differs from `before`."""
    changed = put_back(before)
    require(not changed, f"{method} must leave {', '.join(changed):.300} as it was")


GENERATORS = ("torch's", "numpy's", "Python's")


def generators(device: torch.device) -> tuple[Any, ...]:
    """The state of each of GENERATORS; torch's is of the CPU and of `device`."""
    states = [torch.get_rng_state()]
    if device.type == "cuda" and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state(device))
    return states, np.random.get_state(), random.getstate()


def put_generators_back(before: tuple[Any, ...], device: torch.device) -> list[str]:
    """Put back the generators whose state is not as before; which of GENERATORS they are."""
    now = generators(device)
    drawn = []
    if not all(map(torch.equal, before[0], now[0])):
        drawn.append(GENERATORS[0])
        torch.set_rng_state(before[0][0])
        for state in before[0][1:]:
            torch.cuda.set_rng_state(state, device)
    if not all(np.array_equal(old, new) for old, new in zip(before[1], now[1], strict=True)):
        drawn.append(GENERATORS[1])
        np.random.set_state(before[1])
    if before[2] != now[2]:
        drawn.append(GENERATORS[2])
        random.setstate(before[2])
    return drawn
