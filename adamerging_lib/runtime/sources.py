"""Which source files a piece of code depends on: the modules of these packages that it imports, transitively."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

LIBRARY = __name__.partition(".")[0]
PACKAGES = (LIBRARY, "adamerging_study")


def module_files(names: Iterable[str]) -> dict[str, Path]:
    """Module name → file, for modules of these packages and all of it that they import, transitively and by source."""
    waiting, files = set(names), {}
    while waiting:
        name = waiting.pop()
        if name in files or name.partition(".")[0] not in PACKAGES:
            continue
        spec = importlib.util.find_spec(name)
        files[name] = Path(spec.origin)
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        waiting |= _imports_of(files[name], stamp(files[name]), package)
    return files


def stamp(path: Path) -> int:
    """When a file was last written: what is cached of it holds as long as this stays."""
    return path.stat().st_mtime_ns


@functools.cache
def _imports_of(path: Path, stamp: int, package: str) -> frozenset[str]:
    # Every fit asks for the sources that it depends on, some fifty files.
    return frozenset(imports(ast.parse(path.read_text(encoding="utf-8")), package))


def imports(tree: ast.Module, package: str = "") -> set[str]:
    """Absolute names of the modules that a source imports; of a package, the submodule where the name is one."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.partition(".")[0] in PACKAGES:
                found |= {f"{base}.{a.name}" if _is_module(f"{base}.{a.name}") else base for a in node.names}
    return found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


def notebook_files(sources: Iterable[str]) -> list[Path]:
    """Files of these packages that a notebook depends on, from the sources of its code cells."""
    tree = ast.parse("\n".join(sources))
    return sorted(module_files(imports(tree)).values())
