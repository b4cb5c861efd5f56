"""Functions for sparklet in Python, built into one WebAssembly component.

    from sparklet_udf import scalar

    @scalar
    def slug(text: str) -> str:
        return "-".join(text.lower().split())

`sparklet-udf build functions.py -o functions.wasm` makes the component. The annotations are the types in SQL: `bool`, `int` (Int64),
`float` (Float64), `str`, `bytes`, `date`, `datetime` (Timestamp(us)), `timedelta` (Duration(us)), `list[T]`, a dataclass (a struct), and the
names of this module for all others. A NULL in an argument makes the result NULL without a call, unless the annotation is `Optional[T]`.
What is raised ends the query with its message and the row.
"""

from ._functions import aggregate, scalar, table
from ._types import (
    Decimal128,
    Duration,
    Float32,
    Int8,
    Int16,
    Int32,
    Int64,
    Timestamp,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
)

__all__ = [
    "Decimal128", "Duration", "Float32", "Int8", "Int16", "Int32", "Int64", "Timestamp", "UInt8", "UInt16", "UInt32", "UInt64",
    "aggregate", "scalar", "table",
]
