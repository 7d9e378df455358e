"""LiteRT's latency at batch 1; see latency.py.

    peer_litert.py MODEL.tflite THREADS SECONDS

With XNNPACK, which LiteRT takes by itself.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from peer import measure


def main():
    model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    interpreter = Interpreter(model, num_threads=threads)
    interpreter.allocate_tensors()
    [value] = interpreter.get_input_details()
    noise = np.random.default_rng(0).standard_normal(value["shape"]).astype(value["dtype"])
    interpreter.set_tensor(value["index"], noise)
    measure(interpreter.invoke, seconds)


if __name__ == "__main__":
    main()
