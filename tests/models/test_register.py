"""Our networks are in timm's registry once mixbench and timm are imported, in whatever order."""

import subprocess
import sys

import mixbench.models.register


def test_our_models_are_timms_once_both_are_imported(monkeypatch):
    code = """
import sys, mixbench
assert not {'torch', 'timm'} & set(sys.modules)
import importlib.util
importlib.util.find_spec('timm')  # as libraries do that ask whether it is there
import timm, torch
assert {'pvt_small', 'ca_swin_tiny'} <= set(timm.list_models())
with torch.device('meta'):
    parameters = sum(p.numel() for p in timm.create_model('pvt_small').parameters())
print(parameters, [f for f in sys.meta_path if 'mixbench' in type(f).__module__])
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "24485864 []\n"
    )
    called = []  # and where timm was first, at once
    monkeypatch.setattr(mixbench.models.register, "_register", lambda: called.append(1))
    before = list(sys.meta_path)
    mixbench.models.register.register_models()
    assert called and sys.meta_path == before
