"""Conditions of parameters: ``n_items > 3 and mode == 'fast'``. Nothing is executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

from pvapy_stream.errors import SettingsError

_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


def holds(condition: str, values: Mapping[str, object]) -> bool:
    """Whether a condition is true for these values.

    Raises:
        SettingsError: it is no condition, or names a parameter that does not exist.
    """
    if not condition:
        return True
    try:
        return bool(_value(ast.parse(condition, mode="eval").body, values))
    except KeyError as error:
        raise SettingsError(
            f"condition {condition!r} contains {error}, which is not a parameter"
        ) from error
    except (SyntaxError, TypeError, ValueError) as error:
        raise SettingsError(f"condition {condition!r} cannot be evaluated: {error}") from error


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, (ast.Tuple, ast.List)):
        return [_value(item, values) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, values)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.USub):
            return -value
    if isinstance(node, ast.BoolOp):
        any_or_all = all if isinstance(node.op, ast.And) else any
        return any_or_all(_value(item, values) for item in node.values)
    if isinstance(node, ast.Compare):
        return _compare(node, values)
    raise ValueError("it may contain names, values, comparisons, and, or, not")


# What is missing is neither more nor less than anything.
_NEED_VALUES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def _compare(node: ast.Compare, values: Mapping[str, object]) -> bool:
    left = _value(node.left, values)
    for operation, item in zip(node.ops, node.comparators, strict=True):
        right = _value(item, values)
        missing = isinstance(operation, _NEED_VALUES) and (left is None or right is None)
        if missing or not _COMPARE[type(operation)](left, right):
            return False
        left = right
    return True
