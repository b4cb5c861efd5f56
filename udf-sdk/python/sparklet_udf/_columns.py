"""Columns of the boundary to lists of values, and back."""

from array import array

from wit_world.imports import types as wit

# How numbers lie in bytes.
CODES = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float32": "f", "float64": "d",
}

CASES = {
    "booleans": wit.Values_Booleans, "int8": wit.Values_Int8, "int16": wit.Values_Int16, "int32": wit.Values_Int32,
    "int64": wit.Values_Int64, "uint8": wit.Values_Uint8, "uint16": wit.Values_Uint16, "uint32": wit.Values_Uint32,
    "uint64": wit.Values_Uint64, "float32": wit.Values_Float32, "float64": wit.Values_Float64, "bytes": wit.Values_Bytes,
    "decimals": wit.Values_Decimals, "lists": wit.Values_Lists, "structs": wit.Values_Structs,
}


def bits(bitmap, count):
    return [bool(bitmap[row >> 3] >> (row & 7) & 1) for row in range(count)]


def bitmap(values):
    out = bytearray((len(values) + 7) // 8)
    for row, value in enumerate(values):
        if value:
            out[row >> 3] |= 1 << (row & 7)
    return bytes(out)


def read(kind, column, count):
    """The values of a column, None for NULL; and whether there is one."""
    values, rest = _read(kind, column.nodes, 0, 1 if column.constant else count)
    null = bool(column.nodes[0].validity) and None in values
    return (values * count if column.constant else values), null


def _read(kind, nodes, at, count):
    node, at = nodes[at], at + 1
    raw, case = node.values.value, kind.case
    if case == "bytes":
        offsets, data = array("i", raw.offsets), raw.data
        values = [data[a:b] for a, b in zip(offsets, offsets[1:])]
    elif case == "booleans":
        values = bits(raw, count)
    elif case == "decimals":
        values = [int.from_bytes(raw[i:i + 16], "little", signed=True) for i in range(0, 16 * count, 16)]
    elif case == "lists":
        offsets = array("i", raw)
        items, at = _read(kind.children[0], nodes, at, offsets[-1] if offsets else 0)
        values = [items[a:b] for a, b in zip(offsets, offsets[1:])]
    elif case == "structs":
        fields = []
        for child in kind.children:
            field, at = _read(child, nodes, at, count)
            fields.append(field)
        values = [kind.make[0](*row) for row in zip(*fields)]
    else:
        values = array(CODES[case], raw).tolist()
    if node.validity:
        valid = bits(node.validity, count)
        if kind.of:
            of = kind.of
            return [of(v) if ok else None for v, ok in zip(values, valid)], at
        return [v if ok else None for v, ok in zip(values, valid)], at
    return (list(map(kind.of, values)) if kind.of else values), at


def write(kind, values):
    """The column of a list of values, None for NULL."""
    nodes = []
    _write(kind, values, nodes)
    return wit.Column(nodes, False)


def numbers(kind, values):
    """The bytes of numbers."""
    try:
        return array(CODES[kind.case], values).tobytes()
    except OverflowError:
        raise OverflowError(f"a result does not fit {kind.name}") from None


def _write(kind, values, nodes):
    validity, to, case, raw = b"", kind.to, kind.case, None
    if to is None and case in CODES:
        # Comparing numbers with None is dear: they cannot be packed with one among them.
        try:
            raw = numbers(kind, values)
        except TypeError:
            if None not in values:
                raise
    if raw is None and None in values:
        validity = bitmap([v is not None for v in values])
    node = wit.Node(None, validity)
    nodes.append(node)
    if case == "bytes":
        parts = [b"" if v is None else v for v in values] if to is None else [b"" if v is None else to(v) for v in values]
        offsets, end = [0], 0
        for part in parts:
            end += len(part)
            offsets.append(end)
        raw = wit.Bytes(array("i", offsets).tobytes(), b"".join(parts))
    elif case == "booleans":
        raw = bitmap(values)
    elif case == "decimals":
        raw = b"".join(b"\0" * 16 if v is None else to(v).to_bytes(16, "little", signed=True) for v in values)
    elif case == "lists":
        offsets, end, items = [0], 0, []
        for value in values:
            if value is not None:
                items.extend(value)
                end += len(value)
            offsets.append(end)
        raw = array("i", offsets).tobytes()
        _write(kind.children[0], items, nodes)
    elif case == "structs":
        raw = len(values)
        for name, child in zip(kind.make[1], kind.children):
            _write(child, [None if v is None else getattr(v, name) for v in values], nodes)
    elif raw is None:
        raw = numbers(kind, [0 if v is None else to(v) for v in values] if to else [0 if v is None else v for v in values])
    node.values = CASES[case](raw)
