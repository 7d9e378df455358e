"""ONNX Runtime's accuracy on a data card, and its changed predictions.

    $(bench/oracle-env) bench/peer_eval.py int8.onnx digits.toml --against digits.onnx --kernels as-written

`--kernels default` are those a user gets. On processors with AVX2 but without
VNNI they saturate in 16 bits; `precise` switches that off. `as-written`
computes the Q/DQ nodes in float, one by one, with no graph optimization.
"""

import argparse
import json

import numpy as np
import onnxruntime

from card import Card


def session_options(kernels):
    options = onnxruntime.SessionOptions()
    if kernels == "as-written":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if kernels == "precise":
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def predictions(model, card, options):
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: x})[0].argmax() for x in card.inputs()])


def main():
    parser = argparse.ArgumentParser(description="Score a classifier with ONNX Runtime.")
    parser.add_argument("model")
    parser.add_argument("card", help="for example imagenet.toml@100..1000")
    parser.add_argument("--against", metavar="MODEL", help="count the predictions that differ from this model's")
    parser.add_argument("--kernels", choices=["default", "precise", "as-written"], default="default")
    options = parser.parse_args()
    card, kernels = Card(options.card), session_options(options.kernels)
    classes = predictions(options.model, card, kernels)
    result = {"samples": len(card)}
    if card.labels() is not None:
        result["top1"] = float((classes == card.labels()).mean())
    if options.against:
        result["flips"] = int((classes != predictions(options.against, card, kernels)).sum())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
