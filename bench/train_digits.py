"""Trains the network of `fewbit demo` and writes testdata/digits.

    $(bench/oracle-env requirements-train.txt) bench/train_digits.py

One to two minutes on two cores. The seed fixes the split, the data order and
the initial weights; the last bits of the weights still depend on the BLAS.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from digits import check, data, export, network

SEED = 20
ROOT = Path(__file__).resolve().parent.parent
TEST_TITLE = "1,000 handwritten digits, 100 of each, none seen in training."
CALIBRATION_TITLE = "200 of the training images, 20 of each digit, for calibration."


def main():
    parser = argparse.ArgumentParser(description="Train the digits network of `fewbit demo`.")
    parser.add_argument("--out", type=Path, default=ROOT / "testdata" / "digits", help="folder to write")
    parser.add_argument("--epochs", type=int, default=240)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    rng = np.random.default_rng(SEED)
    images, labels = data.load()
    test, training = data.split(labels, rng)
    calibration = training[:10 * data.CALIBRATION_PER_CLASS]
    net = network.build(rng)
    print(f"{network.parameter_count(net):,} parameters, {len(training)} training and {len(test)} test images")
    network.train(net, data.normalize(images[training]), labels[training], rng, arguments.epochs)

    data.save(arguments.out, "digits-test", "digits", TEST_TITLE, images[test], labels[test])
    data.save(arguments.out, "digits-calib", "digits-calib", CALIBRATION_TITLE, images[calibration], labels[calibration])
    model = arguments.out / "digits.onnx"
    export.save(net, model)
    expected = network.predict(net, data.normalize(images[test]))
    check.report(model, images[test], labels[test], images[calibration], expected)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
