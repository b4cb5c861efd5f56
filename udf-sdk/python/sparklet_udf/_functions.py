"""The decorators, and what they collect."""

import inspect
import typing

from ._types import of_annotation

FUNCTIONS = []


class Function:
    """What is declared of one function."""

    def __init__(self, kind, name, call, args, doc, **more):
        self.kind, self.name, self.call, self.args, self.doc = kind, name, call, args, doc
        self.__dict__.update(more)
        self.nulls = any(arg.nullable for arg in args)
        FUNCTIONS.append(self)

    def describe(self):
        out = {"name": self.name, "kind": self.kind, "args": [arg.name for arg in self.args]}
        if self.kind == "scalar":
            out["nulls"] = "called" if self.nulls else "propagate"
            out["volatility"] = self.volatility
        if self.kind == "table":
            out["columns"] = [[name, kind.name] for name, kind in self.columns]
        else:
            out["returns"] = self.returns.name
        if self.kind == "aggregate":
            out["state"] = [kind.name for kind in self.state]
        if self.doc:
            out["doc"] = self.doc.strip().splitlines()[0]
        return out


def signature(function, where, skip=0):
    """The types of the arguments and of the result."""
    hints = typing.get_type_hints(function, include_extras=True)
    names = list(inspect.signature(function).parameters)[skip:]
    for name in names:
        if name not in hints:
            raise TypeError(f"{where}: argument {name} has no annotation")
    return [of_annotation(hints[name], f"{where}, argument {name}") for name in names], hints.get("return")


def lists_of(annotation, where):
    """Item types of annotations of a function over whole columns: list[T]."""
    if annotation.case != "lists":
        raise TypeError(f"{where}: with lists=True, arguments and result are list[T]")
    return annotation.children[0]


def scalar(function=None, *, name=None, volatility="immutable", lists=False):
    """Declares a scalar function. With `lists=True` it is called with whole columns, as lists, and gives a list of the same length."""

    def declare(function):
        where = f"function {function.__name__}"
        args, result = signature(function, where)
        returns = of_annotation(result, f"{where}, result")
        if lists:
            args, returns = [lists_of(arg, where) for arg in args], lists_of(returns, where)
        Function(
            "scalar", name or function.__name__, function, args, function.__doc__, returns=returns, volatility=volatility, lists=lists
        )
        return function

    return declare(function) if function else declare


def aggregate(group=None, *, name=None):
    """Declares an aggregate function: a class whose instances are groups, with `update`, `merge`, `state` and `evaluate`."""

    def declare(group):
        where = f"aggregate {group.__name__}"
        args, _ = signature(group.update, f"{where}, update", skip=1)
        merged, _ = signature(group.merge, f"{where}, merge", skip=1)
        result = typing.get_type_hints(group.evaluate, include_extras=True).get("return")
        returns = of_annotation(result, f"{where}, result")
        Function("aggregate", name or group.__name__, group, args, group.__doc__, returns=returns, state=merged)
        return group

    return declare(group) if group else declare


def table(**columns):
    """Declares a table function: `@table(word=str, at=Int32)` over a generator of tuples."""

    def declare(function):
        where = f"table {function.__name__}"
        args, _ = signature(function, where)
        kinds = [(name, of_annotation(kind, f"{where}, column {name}")) for name, kind in columns.items()]
        Function("table", function.__name__, function, args, function.__doc__, columns=kinds)
        return function

    return declare
