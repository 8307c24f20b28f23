"""`module:function` in a pipeline file: found, read as text and loaded."""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakefit.config.file import nearest
from lakefit.errors import InputError


def function_problem(name: str, what: str = "function") -> str | None:
    """Return what is wrong with `module:function`, or None; the module is read, never executed. what: to call it."""
    module, _, function = name.partition(":")
    path = _source_of(module)
    if path is None:
        return f"no module {module!r} was found from the working directory ({Path.cwd()}) or among what is installed"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"{path}: {error}"
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [node.name for node in tree.body if isinstance(node, defined)]
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, (ast.ImportFrom, ast.Import))
        for alias in node.names
    }
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if function in names or function in imported | assigned:
        return None
    return f"{path} has no {what} {function!r}{nearest(function, names)}"


def function_source(name: str) -> str:
    """Return a digest of the source of the module that a function stands in: a part of what its result depends on."""
    path = _source_of(name.partition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""


def load_function(name: str) -> Callable[..., Any]:
    """Import the module and return the function, or the class.

    Raises:
        InputError: it can't be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    with _working_directory_first():
        try:
            found = getattr(importlib.import_module(module), function, None)
        except Exception as error:
            raise InputError(f"{name}: the module can't be imported: {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise InputError(f"{name}: the module has no such function.")
    loaded: Callable[..., Any] = found
    return loaded


def _source_of(module: str) -> Path | None:
    """Return the file of a module's source; a module inside a package imports the package."""
    with _working_directory_first():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


@contextmanager
def _working_directory_first() -> Iterator[None]:
    importlib.invalidate_caches()
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
