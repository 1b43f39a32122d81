"""A GPU that only pretends to be there: it counts launches and notices every wait."""

import collections
import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mixbench.puzzle.mask


class PretendedGpu(TorchDispatchMode):
    """Runs what touches a 'cuda' tensor without data, and counts it.

    A value that Python asks for is an error; a copy that would wait stands in `waits`. What is on
    the CPU is computed as ever.
    """

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.pinned = []
        self.launches = collections.Counter()
        self.waits = []

    def __enter__(self):
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if self._on_the_cpu(given, kwargs.get("device")):
            with unset_fake_temporarily():
                if op is torch.ops.aten._pin_memory.default:
                    self.pinned.append(args[0].clone())
                    return self.pinned[-1]
                return op(*args, **kwargs)
        # asking for a value, or for a shape that depends on one, is an error
        made = op(*args, **kwargs)
        for source in given:
            for target in tree_leaves(made):
                if isinstance(target, torch.Tensor) and self._waits(source, target, kwargs):
                    self.waits.append(f"{op} {tuple(source.shape)} {source.device} to {target}")
        if op.namespace == "aten" and not op.is_view:
            self.launches[str(op)] += 1
        return made

    @staticmethod
    def _on_the_cpu(given, device):
        fake = any(isinstance(tensor, FakeTensor) for tensor in given)
        return not fake and (device is None or torch.device(device).type != "cuda")

    def _waits(self, source, target, kwargs):
        if {source.device.type, target.device.type} != {"cpu", "cuda"} or not source.ndim:
            return False
        pinned = any(source is tensor for tensor in self.pinned)
        return target.device.type == "cpu" or not (pinned and kwargs.get("non_blocking"))


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """A pretended GPU, on which the mask solver's kernel is a launch without work.

    Its generator, whose state a real one's driver has on the host, is not kept.
    """

    def kernel(difference, weight, n, *_):
        levels, _, batch = difference.shape
        mode.launches["kernel"] += 1
        return torch.empty_like(difference), difference.new_empty(2, levels**2, n * n, batch)

    monkeypatch.setattr(mixbench.puzzle.mask, "_triton_flow", lambda _: kernel)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    with PretendedGpu() as mode:
        yield mode


class NoWaits(TorchDispatchMode):
    """On the CPU: an error where an operator would make a GPU wait for a value or a shape."""

    WAITING = {
        *("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2"),
        *("bincount", "repeat_interleave"),
    }

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op.overloadpacket.__name__
        assert name not in self.WAITING, f"a wait for the device: {name}"
        if name in ("index", "index_put", "index_put_"):
            # a mask would be counted on the host
            assert all(index is None or index.dtype == torch.int64 for index in args[1])
        return op(*args, **(kwargs or {}))
