"""What may import what, read from the imports of the code itself."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ase_student"

#: From the ground up. A module imports from lower layers and from its own package, not from another
#: of its layer; the ground's modules may use each other.
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
    # Commands, which nobody imports, whatever package they belong to.
    ("__main__",),
)
#: The same within the two large packages; what is not named here is free.
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
    """Return the path of every module by its dotted name without the package's."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(path, known):
    """Return the modules of the package that a module imports anywhere, without its own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        package, _, module = (node.module or "").partition(".")
        if package != "ase_student":
            continue
        for alias in node.names:
            longer = f"{module}.{alias.name}".strip(".")
            found.add(longer if longer in known else module)
    return found


def graph():
    """Return which modules import which; the package itself, which imports lazily, is left out."""
    known = modules()
    return {name: imports_of(path, known) - {name, ""} for name, path in known.items() if name}


def rank_of(name, layers):
    ranks = [rank for rank, layer in enumerate(layers) if name in layer]
    assert ranks, f"{name} is in no layer: add it to LAYERS and to the map of CONTRIBUTING.md"
    return ranks[0]


def test_imports_run_downwards():
    wrong = []
    for name, imported in graph().items():
        own = name.split(".")[0]
        for other in sorted(imported):
            its = other.split(".")[0]
            if own == its:
                continue
            layer = "__main__" if name.endswith("__main__") else own
            rank, its_rank = rank_of(layer, LAYERS), rank_of(its, LAYERS)
            if its_rank > rank or (its_rank == rank and rank > 0):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


@pytest.mark.parametrize("package", INNER_LAYERS)
def test_imports_run_downwards_within(package):
    layers = INNER_LAYERS[package]
    wrong = []
    for name, imported in graph().items():
        if not name.startswith(f"{package}."):
            continue
        own = name.split(".")[1]
        for other in sorted(imported):
            if not other.startswith(f"{package}.") or other.split(".")[1] == own:
                continue
            rank, its_rank = rank_of(own, layers), rank_of(other.split(".")[1], layers)
            if its_rank > rank or its_rank == rank:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_import_comes_back():
    """Depth first: an import that reaches a module still being visited closes a circle."""
    imports = graph()
    state = {}
    circles = []

    def visit(name, above):
        state[name] = "open"
        for other in sorted(imports.get(name, ())):
            if state.get(other) == "open":
                circles.append(" → ".join([*above[above.index(other) :], other]))
            elif other not in state:
                visit(other, [*above, other])
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


def test_every_class_has_a_name_of_its_own():
    places = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
