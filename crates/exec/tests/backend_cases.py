"""Writes the ONNX backend suite as files: those that the package has, and in `node` the cases that
it holds as code.

Usage: backend_cases.py FOLDER
"""

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

WRITERS = {
    "sequence_type": numpy_helper.from_list,
    "map_type": numpy_helper.from_dict,
    "optional_type": numpy_helper.from_optional,
}


def as_proto(value, described):
    """The message of an input or output that the graph describes."""
    if isinstance(value, onnx.TensorProto):
        return value
    writer = WRITERS.get(described.type.WhichOneof("value"))
    if writer is not None:
        return writer(value, described.name)
    return numpy_helper.from_array(np.asarray(value), described.name)


def write(case, folder):
    folder.mkdir(parents=True)
    onnx.save(case.model, folder / "model.onnx")
    graph = case.model.graph
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for kind, values, described in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for at, (value, of) in enumerate(zip(values, described)):
                (data / f"{kind}_{at}.pb").write_bytes(as_proto(value, of).SerializeToString())


folder = Path(sys.argv[1])
shutil.copytree(Path(onnx.__file__).parent / "backend/test/data", folder)
# Cases that divide by zero or leave the range of a type mean it.
warnings.simplefilter("ignore")
np.random.seed(0)
for case in collect_testcases(None):
    write(case, folder / "node" / case.name)
