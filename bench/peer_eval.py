#!/usr/bin/env python3
"""ONNX Runtime's accuracy on a data card, and its changed predictions.

    $(bench/oracle-env) bench/peer_eval.py int8.onnx digits.toml --against digits.onnx --as-written
"""

import argparse
import json

import numpy as np
import onnxruntime

from card import Card


def predictions(model, card, as_written):
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: x})[0].argmax() for x in card.inputs()])


def main():
    parser = argparse.ArgumentParser(description="Score a classifier with ONNX Runtime.")
    parser.add_argument("model")
    parser.add_argument("card", help="for example imagenet.toml@100..1000")
    parser.add_argument("--against", metavar="MODEL", help="count the predictions that differ from this model's")
    parser.add_argument("--as-written", action="store_true", help="no graph optimizations: Q/DQ nodes in float, exactly as the file says")
    options = parser.parse_args()
    card = Card(options.card)
    classes = predictions(options.model, card, options.as_written)
    result = {"samples": len(card)}
    if card.labels() is not None:
        result["top1"] = float((classes == card.labels()).mean())
    if options.against:
        result["flips"] = int((classes != predictions(options.against, card, options.as_written)).sum())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
