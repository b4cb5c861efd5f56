"""The functions of the cases, in Python."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Optional

from sparklet_udf import (
    Decimal128, Duration, Float32, Int8, Int16, Int32, Timestamp, UInt8, UInt16, UInt32, UInt64, aggregate, scalar, table,
)


def adder(name, kind, bits, signed):
    def add(a: kind, b: kind) -> kind:
        total = (a + b) & ((1 << bits) - 1)
        return total - (1 << bits) if signed and total >> (bits - 1) else total

    scalar(add, name=name)


for bits, kind in ((8, Int8), (16, Int16), (32, Int32), (64, int)):
    adder(f"add_int{bits}", kind, bits, True)
for bits, kind in ((8, UInt8), (16, UInt16), (32, UInt32), (64, UInt64)):
    adder(f"add_uint{bits}", kind, bits, False)


@dataclass
class Point:
    x: Optional[float]
    y: Optional[float]


@dataclass
class Tag:
    n: Optional[int]
    words: list[str]


@scalar
def xor(a: bool, b: bool) -> bool:
    return a != b


@scalar
def half_float32(a: Float32) -> Float32:
    return a / 2


@scalar(lists=True)
def mul_add(a: list[float], b: list[float]) -> list[float]:
    return [None if x is None or y is None else x * y + 1 for x, y in zip(a, b)]


@scalar
def shout(text: str) -> str:
    return "".join(chr(ord(c) - 32) if "a" <= c <= "z" else c for c in text) + "!"


@scalar
def or_else(a: Optional[str], b: Optional[str]) -> Optional[str]:
    return b if a is None else a


@scalar
def is_missing(a: Optional[int]) -> bool:
    return a is None


@scalar
def reverse_bytes(data: bytes) -> bytes:
    return data[::-1]


@scalar
def double_decimal(a: Decimal128(12, 2)) -> Decimal128(12, 2):
    return a * 2


@scalar
def next_day(a: date) -> date:
    return a + timedelta(days=1)


@scalar
def add_hour(a: datetime) -> datetime:
    return a + timedelta(hours=1)


@scalar
def add_hour_utc(a: Timestamp("ms", utc=True)) -> Timestamp("ms", utc=True):
    return a + timedelta(hours=1)


@scalar
def negate(a: Duration("s")) -> Duration("s"):
    return -a


@scalar
def sum_list(items: list[Optional[int]]) -> int:
    return sum(item for item in items if item is not None)


@scalar
def letters(text: str) -> list[str]:
    return list(text)


@scalar
def nested(n: int) -> list[list[int]]:
    return [list(range(i)) for i in range(n)]


@scalar
def swap(point: Point) -> Point:
    return Point(point.y, point.x)


@scalar
def tag(n: int, text: str) -> Tag:
    return Tag(n if n >= 0 else None, text.split())


@scalar
def checked_div(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@scalar(name="twice")
def twice_int(a: int) -> int:
    return a * 2


@scalar(name="twice")
def twice_text(a: str) -> str:
    return a * 2


@scalar
def forty_two() -> Int32:
    return 42


@aggregate
class wavg:
    """The average of values by weight."""

    def __init__(self):
        self.sum = self.weight = 0.0

    def update(self, value: float, weight: float):
        self.merge(value * weight, weight)

    def merge(self, sum: float, weight: float):
        self.sum += sum
        self.weight += weight

    def state(self):
        return self.sum, self.weight

    def evaluate(self) -> Optional[float]:
        return self.sum / self.weight if self.weight else None


@aggregate
class longest:
    """The longest text; of equally long ones the first in order."""

    def __init__(self):
        self.best = None

    def update(self, text: str):
        self.merge(text)

    def merge(self, text: Optional[str]):
        rank = None if text is None else (-len(text.encode()), text)
        if rank and (self.best is None or rank < self.best):
            self.best = rank

    def state(self):
        return self.evaluate()

    def evaluate(self) -> Optional[str]:
        return self.best and self.best[1]


@aggregate
class distinct_texts:
    """How many different texts there are."""

    def __init__(self):
        self.texts = set()

    def update(self, text: str):
        self.texts.add(text)

    def merge(self, texts: list[str]):
        self.texts.update(texts)

    def state(self):
        return sorted(self.texts)

    def evaluate(self) -> int:
        return len(self.texts)


@table(word=str, at=Int32)
def words(text: str):
    """The words of a text, and where they are."""
    for at, word in enumerate(text.split()):
        yield word, at


@table(n=int)
def series(low: int, high: int):
    if low > high:
        raise ValueError("the series ends before it begins")
    yield from range(low, high + 1)
