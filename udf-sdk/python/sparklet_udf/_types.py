"""Types: from annotations to names in SQL, and how values of them lie in columns."""

import dataclasses
import types
import typing
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
EPOCH_DAY = date(1970, 1, 1).toordinal()
EPOCH = datetime(1970, 1, 1)
EPOCH_UTC = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Type:
    """A type in SQL: its name, the case of the variant in which its values travel, and how they are made ready for that."""

    def __init__(self, name, case, children=(), nullable=False, to=None, of=None, make=None):
        self.name, self.case, self.children, self.nullable = name, case, children, nullable
        self.to, self.of, self.make = to, of, make

    def optional(self):
        return Type(self.name, self.case, self.children, True, self.to, self.of, self.make)


def number(name, python=int):
    return typing.Annotated[python, Type(name, name.lower())]


Int8, Int16, Int32, Int64 = (number(f"Int{n}") for n in (8, 16, 32, 64))
UInt8, UInt16, UInt32, UInt64 = (number(f"UInt{n}") for n in (8, 16, 32, 64))
Float32 = number("Float32", float)


def Decimal128(precision, scale):
    """`decimal.Decimal` with so many digits, `scale` of them behind the point."""

    def units(value):
        scaled = value.scaleb(scale)
        whole = int(scaled)
        if whole != scaled:
            raise ValueError(f"{value} has more than {scale} digits behind the point")
        return whole

    kind = Type(f"Decimal128({precision},{scale})", "decimals", to=units, of=lambda whole: Decimal(whole).scaleb(-scale))
    return typing.Annotated[Decimal, kind]


def ticks(delta, unit):
    micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return micros * PER_SECOND[unit] // 1_000_000


def Timestamp(unit="us", utc=False):
    """A `datetime`, with the zone UTC or without one. With the unit `ns` an `int`: a `datetime` has no nanoseconds."""
    name = f"Timestamp({unit},UTC)" if utc else f"Timestamp({unit})"
    if unit == "ns":
        return typing.Annotated[int, Type(name, "int64")]
    epoch, per_second = (EPOCH_UTC if utc else EPOCH), PER_SECOND[unit]
    kind = Type(
        name,
        "int64",
        to=lambda value: ticks(value - epoch, unit),
        of=lambda count: epoch + timedelta(seconds=count // per_second, microseconds=count % per_second * 1_000_000 // per_second),
    )
    return typing.Annotated[datetime, kind]


def Duration(unit="us"):
    """A `timedelta`; with the unit `ns` an `int`."""
    if unit == "ns":
        return typing.Annotated[int, Type("Duration(ns)", "int64")]
    per_second = PER_SECOND[unit]
    kind = Type(
        f"Duration({unit})",
        "int64",
        to=lambda value: ticks(value, unit),
        of=lambda count: timedelta(seconds=count // per_second, microseconds=count % per_second * 1_000_000 // per_second),
    )
    return typing.Annotated[timedelta, kind]


PLAIN = {
    bool: Type("Boolean", "booleans"),
    int: Type("Int64", "int64"),
    float: Type("Float64", "float64"),
    str: Type("Utf8", "bytes", to=str.encode, of=bytes.decode),
    bytes: Type("Binary", "bytes"),
    date: Type("Date32", "int32", to=lambda day: day.toordinal() - EPOCH_DAY, of=lambda n: date.fromordinal(n + EPOCH_DAY)),
    datetime: typing.get_args(Timestamp())[1],
    timedelta: typing.get_args(Duration())[1],
}


def of_annotation(annotation, where):
    """The type that an annotation means."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return next(a for a in arguments if isinstance(a, Type))
    if origin in (typing.Union, types.UnionType):
        rest = [a for a in arguments if a is not type(None)]
        if len(rest) == 1 and len(rest) < len(arguments):
            return of_annotation(rest[0], where).optional()
    if origin is list and len(arguments) == 1:
        item = of_annotation(arguments[0], where)
        return Type(f"List({item.name})", "lists", (item,))
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        fields = [(f.name, of_annotation(hints[f.name], f"{where}, field {f.name}")) for f in dataclasses.fields(annotation)]
        name = ", ".join(f"{field}: {kind.name}" for field, kind in fields)
        return Type(f"Struct({name})", "structs", tuple(kind for _, kind in fields), make=(annotation, [f for f, _ in fields]))
    if annotation in PLAIN:
        return PLAIN[annotation]
    raise TypeError(f"{where}: no type in SQL for {annotation!r}")
