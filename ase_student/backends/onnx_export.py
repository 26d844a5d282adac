"""Write students as ONNX files."""

import contextlib
import io
import logging
import warnings
from typing import Any

import onnx
import torch

from ase_student.backends.metadata import INPUTS, METADATA_KEY, OUTPUTS, describe, encode
from ase_student.backends.onnx_safety import seal
from ase_student.backends.tracing import example_inputs
from ase_student.networks import build_potential
from ase_student.provenance import __version__
from ase_student.student import Student

# The operator set that torch's exporter writes without conversion, and the file format of the same
# time: runtimes since 2023 read both.
OPSET = 18
IR_VERSION = 8

_MEANINGS = {
    "numbers": "atomic numbers",
    "positions": "Å",
    "neighbors": "index of each neighbor; a full list, both directions of every pair; unused "
    "places repeat the atom's own index",
    "offsets": "Å, lattice translation of the neighbor's image; unused places point beyond the "
    "cutoff, to (2 * cutoff, 0, 0)",
    "energies": "eV, of each atom, reference energies included",
    "forces": "eV/Å",
    "virials": "eV, of each atom; summed over a structure and divided by its volume they are the "
    "stress, positive in tension",
}


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
    with quiet():
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
    _label(model, name, student.cutoff)
    described = {**describe(student, name, dtype), **(metadata or {})}
    onnx.helper.set_model_props(model, {METADATA_KEY: encode(described)})
    onnx.checker.check_model(model, full_check=True)
    return seal(model.SerializeToString())


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter adds: source lines, and paths of the machine on which it ran."""
    graphs = [model.graph, *(function for function in model.functions)]
    for graph in graphs:
        del graph.metadata_props[:]
        # Shapes of intermediate results: every runtime infers them.
        del graph.value_info[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _label(model: onnx.ModelProto, name: str, cutoff: float) -> None:
    """Write into the file its description, its producer, and the meaning of inputs and outputs."""
    model.ir_version = IR_VERSION
    model.producer_name = "ase-student"
    model.producer_version = __version__
    model.doc_string = (
        f"Interatomic potential '{name}' with a cutoff of {cutoff:g} Å; its metadata entry "
        f"'{METADATA_KEY}' (JSON) holds elements, units and reference results."
    )
    model.graph.name = name
    model.graph.doc_string = ""
    list_input = next(value for value in model.graph.input if value.name == "neighbors")
    list_shape = list_input.type.tensor_type.shape.dim
    names = {list_shape[0].dim_param: "atoms", list_shape[1].dim_param: "neighbors"}
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = _MEANINGS[value.name]
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names[size.dim_param]


@contextlib.contextmanager
def quiet() -> Any:
    """Suppress progress and advice that exporters and quantizers print."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
