"""Write students as ONNX files."""

import contextlib
import io
import logging
import warnings
from typing import Any

import onnx
import torch

from ase_student.backends.metadata import INPUTS, METADATA_KEY, OUTPUTS, describe, encode
from ase_student.backends.tracing import example_inputs
from ase_student.networks import build_potential
from ase_student.student import Student

OPSET = 20


def to_onnx(
    student: Student, name: str, dtype: str = "float32", metadata: dict[str, Any] | None = None
) -> bytes:
    """Return a student as an ONNX file with energies, forces and virials.

    Parameters
    ----------
    student : Student
    name : str
    dtype : str
        Precision of the network.
    metadata : dict, optional
        More entries for the file's metadata.
    """
    potential = build_potential(student, getattr(torch, dtype))
    atoms, neighbors = torch.export.Dim("atoms", min=1), torch.export.Dim("neighbors", min=1)
    shapes = ({0: atoms}, {0: atoms}, {0: atoms, 1: neighbors}, {0: atoms, 1: neighbors})
    inputs = example_inputs(student)
    with _quiet():
        program = torch.export.export(potential, inputs, dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _strip(model)
    described = {**describe(student, name, dtype), **(metadata or {})}
    onnx.helper.set_model_props(model, {METADATA_KEY: encode(described)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Remove the traces of the exporter: source lines and paths of the machine it ran on."""
    graphs = [model.graph, *(function for function in model.functions)]
    for graph in graphs:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in graph.value_info:
            del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the exporter's progress, and its advice about its own internals, from the user."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
