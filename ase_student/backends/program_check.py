"""Check the code of a TorchScript file before it is run.

A TorchScript program can write files and run forever. The programs that this package exports are
traced and frozen: one method without loops and branches that calls a few dozen operators of torch.
Other programs are refused unless the user trusts them.
"""

import ast
import hashlib
import zipfile
from pathlib import Path

__all__ = ["check_program", "seal_program"]

#: Member of the archive that holds the SHA-256 of all other members.
SEAL = "extra/ase_student_sha256"

#: Operators of torch that exported students call, also those that other versions of torch write.
_NAMES = """
abs add add_ alias cat chunk clamp clamp_min clone contiguous cos detach detach_ div div_ embedding
eq exp exp_ expand_as flatten flip ge gt index index_select le linear lt matmul mul mul_ narrow neg
neg_ ones_like permute pow reciprocal relu reshape rsub select sigmoid silu sin size slice split
split_with_sizes sqrt square squeeze stack sub sub_ sum t tensor_split to transpose type_as
unsqueeze view where zeros_like
"""
CALLS = frozenset({f"torch.{name}" for name in _NAMES.split()}) | {
    "int",
    "float",
    "annotate",
    "ops.prim.NumToTensor",
    "torch.__contains__",
}

_NODES = (
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign,
    ast.Return, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant, ast.Tuple, ast.List,
    ast.Subscript, ast.UnaryOp, ast.USub, ast.Load, ast.Store,
)  # fmt: skip


def check_program(path: Path) -> None:
    """Check that a program was sealed by an export and has only code that students have.

    Parameters
    ----------
    path : path
        A TorchScript file whose checksums have been checked.

    Raises
    ------
    ValueError
        If the program has no seal, was changed after it was sealed, or has other code.
    """
    with zipfile.ZipFile(path) as archive:
        seal = next((name for name in archive.namelist() if name.endswith(f"/{SEAL}")), None)
        if seal is None:
            raise ValueError(
                f"'{path}' is a TorchScript program that no export of this package has signed; a "
                "program can do anything, so export the student again, or pass trust=True if you "
                "know who wrote the file."
            )
        if archive.read(seal).decode("ascii", "replace") != _digest(archive):
            raise ValueError(
                f"'{path}' was damaged or changed after its export: its SHA-256 does not match."
            )
        for name in archive.namelist():
            if "/code/" in name and name.endswith(".py"):
                reason = _foreign_code(archive.read(name))
                if reason is not None:
                    raise ValueError(
                        f"'{path}' is a TorchScript program that {reason}, which no student does; "
                        "pass trust=True if you know who wrote the file."
                    )


def seal_program(path: Path, name: str) -> None:
    """Seal a TorchScript file, and remove information about the machine on which it was made.

    This information is the temporary name of the file, after which torch names the folder in the
    archive, and records of the source line of each operation, which are a tenth of all bytes.

    Parameters
    ----------
    path : path
    name : str
        Name of the folder in the archive.
    """
    with zipfile.ZipFile(path) as archive:
        records = [(record, archive.read(record)) for record in archive.namelist()]
    # Members are uncompressed and have a fixed date, as torch writes them.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for record, content in records:
            if not record.endswith((".debug_pkl", f"/{SEAL}")):
                _, _, inner = record.partition("/")
                archive.writestr(zipfile.ZipInfo(f"{name}/{inner}"), content)
        archive.writestr(zipfile.ZipInfo(f"{name}/{SEAL}"), _digest(archive))


def _digest(archive: zipfile.ZipFile) -> str:
    """Return the SHA-256 of the names and contents of all members except the seal."""
    digest = hashlib.sha256()
    for name in sorted(archive.namelist()):
        if not name.endswith(f"/{SEAL}"):
            content = hashlib.sha256(archive.read(name)).hexdigest()
            digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _foreign_code(code: bytes) -> str | None:
    """Return what code does that no student does; None if there is nothing."""
    try:
        tree = ast.parse(code)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "cannot be read"
    for node in nodes:
        if not isinstance(node, _NODES):
            return f"has a part of the kind '{type(node).__name__}'"
        if isinstance(node, ast.FunctionDef) and (node.name != "forward" or node.decorator_list):
            return f"has a method '{node.name}'"
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in CALLS:
            return f"calls '{ast.unparse(node.func)[:60]}'"
    return None
