"""Which packages may import which, read from the imports of the code itself."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ase_student"

#: From the lowest layer up. A module imports from lower layers and from its own package, not from
#: another package of its layer; the modules of the lowest layer may use each other.
LAYERS = (
    (
        "student",
        "neighbors",
        "snapshots",
        "callers",
        "empty_space",
        "files",
        "archives",
        "provenance",
        "templates",
        "cli",
        "testing",
        "plugin",
    ),
    ("legacy", "data", "jobs"),
    ("checkpoint", "networks", "engine"),
    ("backends",),
    ("extrapolation", "export"),
    ("whole_steps",),
    ("calculator",),
    ("potentials",),
    ("dynamics",),
    ("distill", "validation", "demo", "doctor"),
    ("compression", "release"),
    # The commands of all packages, which no module imports.
    ("__main__",),
)
#: The same within the two large packages; packages that are not named here have no inner layers.
INNER_LAYERS = {
    "distill": (
        ("options",),
        ("settings",),
        ("molecules", "training", "labelling", "steps"),
        ("sampling", "active_learning", "recipes", "model_card"),
        ("commands",),
        ("__main__",),
    ),
    "validation": (
        ("models", "extras"),
        ("accuracy", "stability", "speed"),
        ("physics",),
        ("chemistry",),
        ("report",),
        ("settings",),
        ("validate",),
        ("__main__",),
    ),
}
MOST_MODULES_IN_A_FOLDER = 20


def modules():
    """Return the path of every module by its dotted name without the name of the package."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(path, known):
    """Return the modules of the package that a module imports anywhere in its code."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        package, _, module = (node.module or "").partition(".")
        if package != "ase_student":
            continue
        for alias in node.names:
            submodule = f"{module}.{alias.name}".strip(".")
            imported.add(submodule if submodule in known else module)
    return imported


def graph():
    """Return the imports of every module except the package itself, which imports lazily."""
    known = modules()
    return {name: imports_of(path, known) - {name, ""} for name, path in known.items() if name}


def rank_of(name, layers):
    ranks = [rank for rank, layer in enumerate(layers) if name in layer]
    assert ranks, f"{name} is in no layer: add it to LAYERS and to the map of CONTRIBUTING.md"
    return ranks[0]


def test_imports_run_downwards():
    wrong = []
    for name, imports in graph().items():
        package = name.split(".")[0]
        for imported in sorted(imports):
            imported_package = imported.split(".")[0]
            if package == imported_package:
                continue
            layer = "__main__" if name.endswith("__main__") else package
            rank, imported_rank = rank_of(layer, LAYERS), rank_of(imported_package, LAYERS)
            if imported_rank > rank or (imported_rank == rank and rank > 0):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


@pytest.mark.parametrize("package", INNER_LAYERS)
def test_imports_run_downwards_within(package):
    layers = INNER_LAYERS[package]
    wrong = []
    for name, imports in graph().items():
        if not name.startswith(f"{package}."):
            continue
        inner_package = name.split(".")[1]
        for imported in sorted(imports):
            if not imported.startswith(f"{package}.") or imported.split(".")[1] == inner_package:
                continue
            rank, imported_rank = (
                rank_of(inner_package, layers),
                rank_of(imported.split(".")[1], layers),
            )
            if imported_rank > rank or imported_rank == rank:
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_no_imports_form_a_circle():
    """Depth first: an import of a module that is still being visited closes a circle."""
    imports = graph()
    state = {}
    circles = []

    def visit(name, importers):
        state[name] = "open"
        for imported in sorted(imports.get(name, ())):
            if state.get(imported) == "open":
                circles.append(" → ".join([*importers[importers.index(imported) :], imported]))
            elif imported not in state:
                visit(imported, [*importers, imported])
        state[name] = "done"

    for name in imports:
        if name not in state:
            visit(name, [name])
    assert circles == []


def test_no_folder_is_crowded():
    counts = {}
    for path in PACKAGE.rglob("*.py"):
        counts[path.parent] = counts.get(path.parent, 0) + 1
    crowded = {str(folder): n for folder, n in counts.items() if n > MOST_MODULES_IN_A_FOLDER}
    assert crowded == {}


def test_no_two_public_classes_of_modules_share_a_name():
    places = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert {
        name: modules_of_class
        for name, modules_of_class in places.items()
        if len(modules_of_class) > 1
    } == {}


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
