"""LiteRT's latency at batch 1; see latency.py.

    peer_litert.py MODEL.tflite THREADS SECONDS

With XNNPACK, which LiteRT takes by itself.
"""

import json
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter

WARM_UP = 3


def main():
    model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    interpreter, times = Interpreter(model, num_threads=threads), []
    interpreter.allocate_tensors()
    [value] = interpreter.get_input_details()
    noise = np.random.default_rng(0).standard_normal(value["shape"]).astype(value["dtype"])
    interpreter.set_tensor(value["index"], noise)
    for _ in range(WARM_UP):
        interpreter.invoke()
    end = time.perf_counter() + seconds
    while len(times) < 8 or time.perf_counter() < end:
        start = time.perf_counter()
        interpreter.invoke()
        times.append((time.perf_counter() - start) * 1e3)
    median, p90 = (float(np.percentile(times, share)) for share in (50, 90))
    print(json.dumps({"median_ms": median, "p90_ms": p90, "least_ms": min(times), "runs": len(times)}))


if __name__ == "__main__":
    main()
