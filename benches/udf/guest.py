"""The function of `cargo bench --bench udf` in Python."""

from sparklet_udf import scalar


@scalar
def python_margin(a: float, b: float) -> float:
    return a * b + 1
