from typing import Optional

from sparklet_udf import aggregate, scalar


@scalar
def shout(text: str) -> str:
    """In capitals, with an exclamation mark."""
    return text.upper() + "!"


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
