"""What rows say of the machine and the precision."""

import pytest
import torch

from mixbench.runs.environment import precision_name

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("amp", "tf32", "device", "gradient_amp", "name"),
    [
        (False, False, CPU, None, "fp32"),
        (False, True, CPU, None, "fp32"),
        (False, True, CUDA, None, "tf32"),
        (True, True, CUDA, None, "bf16"),
        (False, False, CPU, False, "fp32"),
        (True, False, CPU, True, "bf16"),
        (False, False, CPU, True, "fp32 with bf16 input gradient"),
        (True, False, CPU, False, "bf16 with fp32 input gradient"),
        (True, True, CUDA, False, "bf16 with tf32 input gradient"),
    ],
)
def test_precision_says_what_the_network_and_the_input_gradient_compute_in(
    amp, tf32, device, gradient_amp, name
):
    assert precision_name(amp, tf32, device, gradient_amp) == name
