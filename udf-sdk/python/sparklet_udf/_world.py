"""The exports of the component."""

import json
from array import array
from itertools import islice

from componentize_py_types import Err
from wit_world.imports import types as wit

from ._columns import read, write
from ._functions import FUNCTIONS

BATCH = 8192
handles = {}
last = 0


def failed(error, row=None):
    message = str(error)
    if type(error) not in (ValueError, RuntimeError, Exception) or not message:
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Err(wit.Failure(message, row))


def keep(value):
    global last
    last += 1
    handles[last] = value
    return last


class Groups:
    """All groups of a task."""

    def __init__(self, function):
        self.function, self.groups = function, []

    def room(self, count):
        groups = self.groups
        while len(groups) < count:
            groups.append(self.function.call())

    def take(self, kinds, count, columns, ids, group_count, method):
        self.room(group_count)
        groups, row = self.groups, 0
        columns = [read(kind, column, count) for kind, column in zip(kinds, columns)]
        strict = [i for i, (kind, (_, null)) in enumerate(zip(kinds, columns)) if null and not kind.nullable]
        rows = zip(*(values for values, _ in columns)) if columns else ((),) * count
        try:
            for row, (group, arguments) in enumerate(zip(array("I", ids), rows)):
                if strict and any(arguments[i] is None for i in strict):
                    continue
                getattr(groups[group], method)(*arguments)
        except Exception as error:
            raise failed(error, row) from None

    def first(self, count):
        self.room(count)
        first, self.groups = self.groups[:count], self.groups[count:]
        return first


class WitWorld:
    def describe(self):
        return json.dumps({"abi": "1.0", "functions": [function.describe() for function in FUNCTIONS]})

    def scalar(self, function, count, arguments):
        function = FUNCTIONS[function]
        columns, nulls = [], []
        for kind, column in zip(function.args, arguments):
            values, null = read(kind, column, count)
            columns.append(values)
            if null and not kind.nullable:
                nulls.append(values)
        call, out = function.call, []
        try:
            if function.lists:
                out = call(*columns)
                if len(out) != count:
                    raise ValueError(f"{len(out)} results for {count} rows")
                return write(function.returns, out)
            if not columns:
                out.extend(call() for _ in range(count))
            elif not nulls:
                # What raises leaves the rows before it in the list.
                out.extend(map(call, *columns))
            else:
                for row, values in enumerate(zip(*columns)):
                    out.append(None if any(column[row] is None for column in nulls) else call(*values))
        except Exception as error:
            raise failed(error, None if function.lists else len(out)) from None
        try:
            return write(function.returns, out)
        except Exception as error:
            raise failed(error) from None

    def aggregate_new(self, function):
        return keep(Groups(FUNCTIONS[function]))

    def aggregate_update(self, handle, count, arguments, groups, group_count):
        all_groups = handles[handle]
        all_groups.take(all_groups.function.args, count, arguments, groups, group_count, "update")

    def aggregate_merge(self, handle, count, state, groups, group_count):
        all_groups = handles[handle]
        all_groups.take(all_groups.function.state, count, state, groups, group_count, "merge")

    def aggregate_state(self, handle, groups):
        all_groups = handles[handle]
        try:
            states = [group.state() for group in all_groups.first(groups)]
            kinds = all_groups.function.state
            if len(kinds) == 1:
                states = [state if isinstance(state, tuple) else (state,) for state in states]
            columns = list(zip(*states)) if states else [()] * len(kinds)
            return [write(kind, list(column)) for kind, column in zip(kinds, columns)]
        except Exception as error:
            raise failed(error) from None

    def aggregate_evaluate(self, handle, groups):
        all_groups, out = handles[handle], []
        try:
            out.extend(group.evaluate() for group in all_groups.first(groups))
            return write(all_groups.function.returns, out)
        except Exception as error:
            raise failed(error, len(out)) from None

    def aggregate_size(self, handle):
        return 256 * len(handles[handle].groups)

    def aggregate_drop(self, handle):
        handles.pop(handle, None)

    def table_open(self, function, arguments):
        function = FUNCTIONS[function]
        values = [read(kind, column, 1)[0][0] for kind, column in zip(function.args, arguments)]
        if any(value is None and not kind.nullable for kind, value in zip(function.args, values)):
            return keep((function, iter(())))
        try:
            rows = iter(function.call(*values))
            # A generator has not begun: its first row tells whether the arguments are good.
            first = next(rows, None)
        except Exception as error:
            raise failed(error, 0) from None
        return keep((function, rows if first is None else chain(first, rows)))

    def table_next(self, handle):
        function, rows = handles[handle]
        try:
            batch = list(islice(rows, BATCH))
            if not batch:
                return None
            if len(function.columns) == 1:
                batch = [row if isinstance(row, tuple) else (row,) for row in batch]
            columns = zip(*batch, strict=True)
            return wit.Rows(len(batch), [write(kind, list(column)) for (_, kind), column in zip(function.columns, columns)])
        except Exception as error:
            raise failed(error) from None

    def table_close(self, handle):
        handles.pop(handle, None)


def chain(first, rows):
    yield first
    yield from rows
