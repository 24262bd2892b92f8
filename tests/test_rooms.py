"""The house keeps its shape: which room may import which, how long a function is, how many files lie at the root."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from adamerging_lib.runtime.sources import imports

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, STUDY = "adamerging_lib", "adamerging_study"
CORE = ("state", "task_vectors", "coefficients", "layers", "suite", "forward", "merged", "evaluation", "records")
LONGEST = 60
AT_THE_ROOT = 12


def modules(package: str) -> dict[str, Path]:
    """Module name → file, of one package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(name: str, path: Path) -> set[str]:
    """What one module imports of this project, by source, those of type checkers too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return imports(ast.parse(path.read_text(encoding="utf-8")), package)


def test_the_library_never_imports_the_study():
    for name, path in modules(LIBRARY).items():
        assert not [other for other in imported(name, path) if other.startswith(STUDY)], name


def test_the_core_imports_no_world():
    for name in CORE:
        found = imported(f"{LIBRARY}.{name}", ROOT / LIBRARY / f"{name}.py")
        assert not [other for other in found if other.startswith(f"{LIBRARY}.worlds")], name


def test_records_published_numbers_and_roles_need_no_torch():
    """What tables and figures read: the library's own `__init__` is run too, hence a fresh process."""
    code = "import sys, adamerging_lib.records, adamerging_lib.published, adamerging_lib.worlds.roles; "
    code += "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_room_and_a_function_of_one_name_live_together():
    """`am.methods()` lists the methods, also after the room `adamerging_lib.methods` was imported."""
    code = "import adamerging_lib as am, adamerging_lib.methods.ties; assert 'ties' in am.methods().index"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_few_files_lie_at_the_root_of_the_library():
    """A newcomer sees the core at one glance; what is not core has a room."""
    files = sorted(path.name for path in (ROOT / LIBRARY).glob("*.py"))
    assert len(files) <= AT_THE_ROOT, files


@pytest.mark.parametrize("package", [LIBRARY, STUDY])
def test_functions_are_short(package):
    """Bodies, docstrings apart."""
    for name, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= LONGEST, f"{name}.{node.name} has {lines} lines"
