"""Merging coefficients λ with their names: a table of rows and tasks that can be saved, read and shown."""

from __future__ import annotations

import ast
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from .layers import encoder_names
from .runtime.atomic import atomic
from .runtime.values import one_of
from .task_vectors import GRANULARITIES

SCHEMA = 1
_DTYPES = {"float32": torch.float32, "float64": torch.float64}

# Task order of the authors' eight-task suite; their file holds numbers only.
AUTHORS_TASKS = ("SUN397", "Cars", "RESISC45", "EuroSAT", "SVHN", "GTSRB", "MNIST", "DTD")


@dataclass(frozen=True)
class Coefficients:
    """Merging coefficients λ ``[K, R]`` of K tasks and R rows.

    Arguments:
        values: ``[K, R]``, floating point.
        tasks: K names.
        rows: R names, see `TaskVectors.rows`.
        granularity: ``task``, ``block``, ``module`` or ``tensor``.

    Example:
        >>> values = torch.tensor([[0.3, 0.1], [0.2, 0.4]])
        >>> table = am.Coefficients(values, ("cars", "pets"), ("blocks.0", "blocks.1"), "block")
        >>> table.save("coefficients.json")
        >>> torch.equal(am.Coefficients.load("coefficients.json").values, values)
        True
    """

    values: Tensor
    tasks: tuple[str, ...]
    rows: tuple[str, ...]
    granularity: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "rows", tuple(self.rows))
        one_of("granularity", self.granularity, GRANULARITIES)
        if not isinstance(self.values, Tensor) or self.values.dtype not in _DTYPES.values():
            raise ValueError("coefficient values must be a float32 or float64 tensor [tasks, rows]")
        for what, names in (("task", self.tasks), ("row", self.rows)):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} names of the coefficients repeat: name each once")
        expected = [len(self.tasks), len(self.rows)]
        if list(self.values.shape) != expected:
            raise ValueError(f"coefficient values have shape {list(self.values.shape)}, their names say {expected}")
        if not bool(torch.isfinite(self.values).all()):
            raise ValueError("coefficients hold NaN or Inf: give finite numbers")

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a line per row and a column per task."""
        frame = pd.DataFrame(self.values.detach().cpu().t().numpy(), index=list(self.rows), columns=list(self.tasks))
        return frame.rename_axis(index="row", columns="task")

    def aligned(self, tasks: tuple[str, ...], rows: tuple[str, ...]) -> Tensor:
        """Return ``[K, R]`` in the order of the given names; a ValueError names what is missing or superfluous."""
        for what, own, wanted in (("task", self.tasks, tasks), ("row", self.rows, rows)):
            if difference := set(own) ^ set(wanted):
                raise ValueError(f"coefficients and model differ in their {what} names: {sorted(difference)[:5]}")
        return self.values[[self.tasks.index(t) for t in tasks]][:, [self.rows.index(r) for r in rows]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the coefficients as JSON; floats keep every bit."""
        content = {
            "schema": SCHEMA,
            "granularity": self.granularity,
            "dtype": next(name for name, dtype in _DTYPES.items() if dtype == self.values.dtype),
            "tasks": self.tasks,
            "rows": self.rows,
            "values": self.values.detach().cpu().double().tolist(),
        }
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Coefficients:
        """Read coefficients that `save` wrote.

        Raises:
            ValueError: the file is not a coefficient table, or its parts do not fit together; names the file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']!r} is not {SCHEMA}: written by another version")
            values = torch.tensor(content["values"], dtype=_DTYPES[content["dtype"]])
            return cls(values, content["tasks"], content["rows"], content["granularity"])
        except FileNotFoundError as error:
            raise ValueError(f"no coefficient table at {path}: check the path") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no coefficient table as Coefficients.save writes it: {error}") from error


def read_authors_file(path: str | os.PathLike[str]) -> dict[tuple[str, ...], Coefficients]:
    """Read the coefficient tables that AdaMerging's authors released as Python source, without executing it.

    Every assignment of a nested list of numbers counts; numbers may be literals, names of earlier numbers, or simple
    arithmetic of them. Anything else is skipped.

    Arguments:
        path: ``merging_cofficient.py`` of the published code.

    Returns:
        Key → coefficients. The key is what the enclosing conditions compare with, such as
        ``("lw_adamerging", "ViT-B-32")``, or the variable's name where there is no condition. θ0's own coefficient,
        the file's first column, is dropped where it is 1 throughout. Rows of the 158- and 302-row tables are named
        after the open_clip model, tasks after the paper.

    Raises:
        ValueError: the file is missing, is not Python, or holds no table.

    Example:
        >>> _ = Path("merging_cofficient.py").write_text("task_wise = [[1, 0.3, 0.2]]")
        >>> am.read_authors_file("merging_cofficient.py")["task_wise",].values.tolist()
        [[0.3], [0.2]]
    """
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as Python source: {error}") from error
    tables: dict[tuple[str, ...], Coefficients] = {}
    _collect(tree.body, (), {}, tables)
    if not tables:
        raise ValueError(f"{path} holds no nested list of numbers: give the authors' merging_cofficient.py")
    return tables


def _collect(body: list[ast.stmt], conditions: tuple, names: dict[str, object], tables: dict) -> None:
    for node in body:
        if isinstance(node, ast.If):
            _collect(node.body, (*conditions, *_compared(node.test)), names, tables)
            _collect(node.orelse, conditions, names, tables)
        elif isinstance(node, (ast.FunctionDef, ast.For, ast.While, ast.With)):
            _collect(node.body, conditions, dict(names), tables)
        elif isinstance(node, (ast.Assign, ast.Return)) and node.value is not None:
            found = _number(node.value, names)
            first = node.targets[0] if isinstance(node, ast.Assign) else None
            target = first.id if isinstance(first, ast.Name) else ""
            if isinstance(found, float):
                names[target] = found
            if isinstance(found, list) and (table := _table(found)) is not None:
                for key in itertools.product(*conditions) if conditions else [(target,)]:
                    tables[key] = table


def _compared(test: ast.expr) -> list[list[str]]:
    """Strings that a condition compares with: one list of alternatives per comparison."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [alternatives for value in test.values for alternatives in _compared(value)]
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Eq, ast.In)):
        right = test.comparators[0]
        elements = right.elts if isinstance(right, (ast.List, ast.Tuple)) else [right]
        strings = [e.value for e in elements if isinstance(e, ast.Constant) and isinstance(e.value, str)]
        return [strings] if strings else []
    return []


_ARITHMETIC = {ast.Add: float.__add__, ast.Sub: float.__sub__, ast.Mult: float.__mul__, ast.Div: float.__truediv__}


def _number(node: ast.expr, names: Mapping[str, object]) -> float | list | None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand, names)
        return -value if isinstance(value, float) else None
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _number(node.left, names), _number(node.right, names)
        if isinstance(left, float) and isinstance(right, float) and not (right == 0 and isinstance(node.op, ast.Div)):
            return _ARITHMETIC[type(node.op)](left, right)
        return None
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_number(element, names) for element in node.elts]
        return None if None in values else values
    return None


def _table(rows: list) -> Coefficients | None:
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    if not width or any(
        not isinstance(row, list) or len(row) != width or not all(isinstance(v, float) for v in row) for row in rows
    ):
        return None
    values = torch.tensor(rows, dtype=torch.float64).t()  # [columns, R]
    if width > 1 and bool((values[0] == 1).all()):
        values = values[1:]
    tasks = AUTHORS_TASKS if len(values) == len(AUTHORS_TASKS) else tuple(f"task_{k}" for k in range(len(values)))
    names = _open_clip_rows(len(rows)) or tuple(f"row_{r}" for r in range(len(rows)))
    granularity = "task" if len(rows) == 1 else "tensor"
    return Coefficients(values.contiguous(), tasks, ("all",) if len(rows) == 1 else names, granularity)


def _open_clip_rows(count: int) -> tuple[str, ...] | None:
    """Tensor names of the authors' pickled open_clip models, in their order: 12 or 24 blocks of 12 tensors."""
    return next((names for names in map(encoder_names, (12, 24)) if len(names) == count), None)
