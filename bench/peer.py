"""What the scripts of the peers share: see latency.py."""

import json
import time

import numpy as np

WARM_UP = 3


def measure(call, seconds):
    """Calls for so long, at least eight times, and prints the latencies."""
    for _ in range(WARM_UP):
        call()
    print(json.dumps(summary(latencies(call, time.perf_counter() + seconds, 8))))


def latencies(call, end, least):
    """Milliseconds of each call until `end`."""
    times = []
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def summary(times):
    median, p90, p99 = (float(np.percentile(times, share)) for share in (50, 90, 99))
    return {"median_ms": median, "p90_ms": p90, "p99_ms": p99, "least_ms": min(times), "runs": len(times)}
