"""The hash of the code that makes an artefact. It follows the imports of a function within this package.

The hash covers the module of the function, the modules that it imports, and so on. Only their syntax trees count,
without docstrings and comments, so a reworded comment changes no key. It also covers the data files that these modules
name in a call of `utils.paths.data_file`, such as weights and the face model. No list is kept by hand, and no module is
imported.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from utils.paths import ROOT, data_file

PACKAGE = __name__.partition(".")[0]

Code = Callable | str  # a function or class of this package, or the dotted name of a module or of something in it


class Module(NamedTuple):
    """The parts of a module's source that count."""

    digest: str  # of its syntax tree
    imports: tuple[str, ...]  # dotted names of modules of the package, or of names in them
    files: frozenset[str]  # paths of data files in the package


def code_hash(code: Code | Iterable[Code], root: Path = ROOT) -> str:
    """Hash (64 hexadecimal digits) of the modules that `code` reaches and of the data files that they name.

    root: the folder that holds the package; a copy with the same code has the same hash. Raises ModuleNotFoundError for
    code of another package.
    """
    names = reached_modules(code, root)
    parts = [f"{name} {_module(name, root).digest}" for name in names]
    parts += [f"{file.name} {_content(file, file.stat().st_mtime_ns)}" for file in data_files(names, root)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def reached_modules(code: Code | Iterable[Code], root: Path = ROOT) -> list[str]:
    """Sorted dotted names of the modules of `code` and of all modules that they import, directly or indirectly."""
    names = [_name_of(part) for part in ([code] if isinstance(code, str) or callable(code) else code)]
    todo = [_within(name, root) or name for name in names]
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            modules = (_within(imported, root) for imported in _module(name, root).imports)
            todo += [module for module in modules if module]
    return sorted(reached)


def data_files(names: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The data files that these modules name, sorted."""
    named = frozenset().union(*(_module(name, root).files for name in names))
    return sorted(root / PACKAGE / file for file in named)


def _name_of(code: Code) -> str:
    return code if isinstance(code, str) else code.__module__


def _within(name: str, root: Path) -> str | None:
    """The module of a dotted name: the name itself, or the name without its last part; None if neither is a module."""
    candidates = (name, name.rpartition(".")[0])
    return next((module for module in candidates if module and _source(module, root)), None)


def _source(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    candidates = path.with_suffix(".py"), path / "__init__.py"
    is_own = name.partition(".")[0] == PACKAGE
    return next((file for file in candidates if is_own and file.is_file()), None)


def _module(name: str, root: Path) -> Module:
    file = _source(name, root)
    if file is None:
        raise ModuleNotFoundError(f"{name}: not a module of {PACKAGE}. Remedy: name a function or module of it.")
    return _parsed(file, name if file.name == "__init__.py" else name.rpartition(".")[0], file.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _parsed(file: Path, package: str, mtime_ns: int) -> Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = tuple(_imports(tree, package))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return Module(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports, frozenset(_named_files(tree)))


def _named_files(tree: ast.AST) -> Iterator[str]:
    """The arguments of the calls of `data_file`. Raises ValueError for an argument that is not a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == data_file.__name__:
            if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
                raise ValueError(f"{ast.unparse(node)}: not a literal. Remedy: name the data file itself.")
            yield node.args[0].value


def imported_names(source: str) -> list[str]:
    """The imports of a source text from this package: dotted names of modules, or of names in them."""
    return list(_imports(ast.parse(source), ""))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (outer, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.partition(".")[0] == PACKAGE)


@lru_cache(maxsize=64)
def _content(file: Path, mtime_ns: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
