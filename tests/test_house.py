"""Facts about the folders of `utils`: which may import which, without circles, and each names its modules."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import pytest

import utils
from utils.code_hash import imported_names, reached_modules

ROOT = Path(utils.__file__).parent
GROUND = ("paths", "errors", "config", "code_hash", "artefacts", "progress", "parallel")
ORDER = (
    *("dataset", "render", "flow", "train", "synthetic", "pipeline", "evaluate", "provenance", "report"),
    *("make_data", "check", "predict", "run", "lab"),
)
FLAT = {*GROUND, "pipeline", "provenance", "make_data", "check", "predict", "run", "__init__"}
FOLDERS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.rglob("*/__init__.py"))
MODULES = {
    ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imports_of(name):
    """Dotted names of the modules of `utils` that a module imports, also in functions and for types."""
    path, names = MODULES[name], set()
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            outer = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (outer, node.module) if part)
            inner = {f"{module}.{alias.name}" for alias in node.names}
            names |= {inside if inside in MODULES else module for inside in inner}
    return {name for name in names if name.partition(".")[0] == ROOT.name}


def place(name):
    """The folder or flat module of `utils` that a dotted name lies in."""
    return name.split(".")[1] if "." in name else "__init__"


def allowed(where):
    """Folders and flat modules that one may import: those before it; in the ground, one another."""
    return {*GROUND} if where in GROUND else {*GROUND, *ORDER[: ORDER.index(where) + 1]}


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {ROOT.name}))
def test_a_module_imports_only_what_stands_before_its_folder(name):
    against = {other for other in imports_of(name) if place(other) not in allowed(place(name))}
    assert not against, f"{name} imports {', '.join(sorted(against))} against the direction of imports"


@pytest.mark.parametrize("notebook", sorted((ROOT.parent / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_notebook_reaches_the_laboratory(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    names = imported_names("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    assert names and not [name for name in reached_modules(names) if place(name) == "lab"]


def test_no_module_imports_itself_through_others():
    try:
        TopologicalSorter({name: imports_of(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


def test_imports_are_found_wherever_they_stand():
    assert "utils.flow.faceflow_net" in imports_of("utils.flow.faceflow")  # in a function, and for types
    assert "utils.report.figures.render" in imports_of("utils.report.data_card")  # from a folder
    assert imports_of("utils.paths") == set()


def test_the_package_names_the_order_of_its_folders():
    named = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))))
    assert [name for name in named if name in ORDER] == list(ORDER)
    assert set(GROUND) <= set(named) and {folder for folder in FOLDERS if "/" not in folder} <= set(ORDER)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_names_each_of_its_modules(folder):
    text = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert modules <= set(re.findall(r"`(\w+)`", text))


def test_every_module_can_be_reached():
    assert {path.stem for path in ROOT.glob("*.py")} <= FLAT
    without = {path.parent.relative_to(ROOT) for path in MODULES.values() if not (path.parent / "__init__.py").exists()}
    assert not without, "folders without __init__.py are left out of an installed copy"
