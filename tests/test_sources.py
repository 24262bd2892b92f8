"""Dependencies of a notebook: every module that it can reach, and none that it cannot."""

from adamerging_lib.runtime.sources import module_files, notebook_files


def stems(cells):
    return {path.stem if path.stem != "__init__" else path.parent.name for path in notebook_files(cells)}


def test_a_notebook_depends_on_what_its_imports_reach():
    library = stems(["import adamerging_lib as am\nsuite = am.load_suite()"])
    assert {"adamerging_lib", "task_vectors", "ties", "profiles", "world", "scenes", "encoders"} <= library
    assert not {"show", "style", "sphinx", "notebooks", "build", "training"} & library
    drawn = stems(["import adamerging_lib as am", "from adamerging_study.performance import show"])
    assert library < drawn and {"show", "style"} <= drawn
    assert stems(["import numpy as np"]) == set()


def test_imports_are_followed_by_source_inside_functions_too():
    files = module_files({"adamerging_lib.worlds.profiles"})
    assert "adamerging_lib.worlds.mini.world" in files  # imported inside a function
    assert all(path.is_file() for path in files.values())
