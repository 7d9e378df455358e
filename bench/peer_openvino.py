"""OpenVINO's latency at batch 1; see latency.py.

    peer_openvino.py MODEL THREADS SECONDS

In f32 where the file says so, as the others: `INFERENCE_PRECISION_HINT` keeps it
from rounding to bf16 where the processor could.
"""

import sys

import numpy as np
import openvino
from peer import measure


def feed(model):
    """Normal noise for floats, ones for the rest; unknown extents are 1."""
    rng, inputs = np.random.default_rng(0), {}
    for value in model.inputs:
        shape = [extent.get_length() if extent.is_static else 1 for extent in value.partial_shape]
        kind = value.element_type.to_dtype()
        floating = np.issubdtype(kind, np.floating)
        inputs[value.any_name] = (rng.standard_normal(shape) if floating else np.ones(shape)).astype(kind)
    return inputs


def main():
    model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request, inputs = compiled.create_infer_request(), feed(compiled)
    measure(lambda: request.infer(inputs), seconds)


if __name__ == "__main__":
    main()
