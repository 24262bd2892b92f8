"""What is declared agrees: lock, pyproject and environment; and nothing of one machine is in a tracked file."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for text in sum(EXTRAS.values(), PROJECT["dependencies"])]
# Put together, so that this file passes its own test.
FOREIGN = re.compile("/(work|root|home|tmp)" + r"/\w|pypi" + r"\.org|python" + "hosted")


PACKAGES = ("adamerging_lib", "adamerging_study")


def pins(lines) -> dict[str, str]:
    return dict((canonicalize_name(name), version) for name, version in (line.split("==") for line in lines))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins(line for line in lines if not line.startswith("#"))


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_lock_is_plain_pins_for_every_platform():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert not [name for name in locked() if name.startswith(("nvidia-", "cuda-", "triton", "pip"))]


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_lock_satisfies_pyproject(requirement):
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_environment_has_the_direct_dependencies_at_the_locked_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (by_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    found = pins(line for line in by_pip if not line.startswith("-e"))
    assert found == {name: version for name, version in locked().items() if name in found}
    assert set(found) == {canonicalize_name(requirement.name) for requirement in DIRECT}


def test_every_import_of_the_library_is_declared():
    declared = {canonicalize_name(Requirement(text).name) for text in sum(EXTRAS.values(), PROJECT["dependencies"])}
    homes = packages_distributions()
    for path in sorted(path for top in PACKAGES for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names):
                # Sphinx and its docutils belong to jupyter-book; only the Sphinx extension uses them
                if top not in (*PACKAGES, "docutils", "sphinx"):
                    found = {canonicalize_name(home) for home in homes.get(top, [top])}
                    assert found & declared, f"{path.name} imports {top}, which pyproject.toml does not declare"


def test_tracked_files_hold_no_path_of_a_machine_and_no_registry():
    for path in tracked():
        if path.suffix not in (".png", ".safetensors", ".npz", ".pt") and "mathjax" not in path.parts:
            found = FOREIGN.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)} holds {found[0]!r}"


def test_tracked_files_are_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    for path, size in sizes.items():
        assert size <= 6e6, f"{path.relative_to(ROOT)} has {size / 1e6:.1f} MB"
    assert sum(size for path, size in sizes.items() if "zoo" in path.parts) <= 40e6


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_call_make_targets_only(path):
    """What a workflow does can be done at home: its commands are targets of the Makefile."""
    workflow = yaml.safe_load(path.read_text())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert not commands or job["timeout-minutes"] <= 90
        for command in commands:
            make, target, *_ = command.split()
            assert make == "make" and target in targets, command
