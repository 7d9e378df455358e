"""ONNX Runtime's latency at batch 1; see latency.py.

    peer_latency.py MODEL THREADS SECONDS [precise]
"""

import json
import sys
import time

import numpy as np
import onnxruntime

WARM_UP = 3
KINDS = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}


def feed(session):
    """Normal noise for floats, ones for the rest; unknown extents are 1."""
    rng, inputs = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [extent if isinstance(extent, int) else 1 for extent in value.shape]
        kind = KINDS[value.type]
        floating = np.issubdtype(kind, np.floating)
        inputs[value.name] = (rng.standard_normal(shape) if floating else np.ones(shape)).astype(kind)
    return inputs


def main():
    model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if "precise" in sys.argv[4:]:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs, times = feed(session), []
    for _ in range(WARM_UP):
        session.run(None, inputs)
    end = time.perf_counter() + seconds
    while len(times) < 8 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"median_ms": float(np.median(times)), "p90_ms": float(np.percentile(times, 90)), "runs": len(times)}))


if __name__ == "__main__":
    main()
