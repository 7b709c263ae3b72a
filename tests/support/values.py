"""PostgreSQL's text of values, written anew from the documentation and PostgreSQL's sources: what the output function of a
type prints for an Arrow value. It shares no code with the exporter, so that both have to be wrong in the same way for a
damaged value to go unseen.

`texts(array, kind)` gives the texts of an Arrow array whose column has the PostgreSQL type `kind`, None for NULL. Settings
are those of a comparison: DateStyle ISO, TimeZone UTC, bytea hex, shortest floats, lc_monetary C.
"""

import collections
import decimal
import functools
import math
import re

import numpy
import pyarrow as pa
import pyarrow.compute as pc

# A PostgreSQL type. `what`: base, array, composite, range or multirange; domains are their base types. `parts` are the
# types of elements, attributes or bounds; `delimiter` stands between the elements of an array.
Kind = collections.namedtuple("Kind", "name what parts delimiter", defaults=("base", (), ","))

SECOND = 1_000_000
DAY = 86_400 * SECOND


def texts(array, kind):
    """The texts of a pyarrow array."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    arrow = array.type
    if pa.types.is_null(arrow):
        return [None] * len(array)
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow):
        return strings(array)
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return lists(array, kind)
    if pa.types.is_struct(arrow):
        return structs(array, kind)
    if pa.types.is_map(arrow):
        return [None if value is None else hstore(value) for value in array.to_pylist()]
    if pa.types.is_floating(arrow):
        function = functools.partial(float_text, single=arrow == pa.float32())
        return each(array.to_pylist(), function)
    if pa.types.is_decimal(arrow):
        return each(array.to_pylist(), money if kind.name == "money" else plain_decimal)
    for accepts, storage, function in SCALARS:
        if accepts(arrow):
            values = array.to_pylist() if storage is None else array.cast(storage).to_pylist()
            return each(values, function)
    if pa.types.is_timestamp(arrow) and arrow.unit in ("us", "ms"):
        scale = 1 if arrow.unit == "us" else 1000
        suffix = "+00" if arrow.tz else ""
        return each(array.cast(pa.int64()).to_pylist(), lambda value: timestamp(value * scale, suffix))
    raise TypeError(f"no text for the Arrow type {arrow}")


def each(values, function):
    return [None if value is None else function(value) for value in values]


def strings(array):
    """The strings; bytes that are not UTF-8 become what psql's output becomes here (surrogates), and differ visibly."""
    return each(array.cast(pa.large_binary()).to_pylist(), lambda value: value.decode("utf-8", "surrogateescape"))


# --- Scalars.


def plain_decimal(value):
    return format(value, "f")


def money(value):
    """cash_out where lc_monetary is C."""
    sign = "-" if value < 0 else ""
    return f"{sign}${abs(value):,.2f}"


def shortest(digits, fixed_below):
    """A finite float's shortest digits in PostgreSQL's layout: scientific from 10^fixed_below and below 10^-4."""
    sign, digits, exponent = decimal.Decimal(digits).as_tuple()
    digits = "".join(map(str, digits))
    kept = digits.rstrip("0") or "0"
    exponent += len(digits) - len(kept)
    point = len(kept) + exponent
    minus = "-" if sign else ""
    if kept == "0":
        return minus + "0"
    if -4 <= point - 1 < fixed_below:
        if point <= 0:
            return f"{minus}0.{'0' * -point}{kept}"
        if point >= len(kept):
            return minus + kept + "0" * (point - len(kept))
        return f"{minus}{kept[:point]}.{kept[point:]}"
    fraction = "." + kept[1:] if len(kept) > 1 else ""
    return f"{minus}{kept[0]}{fraction}e{'-' if point < 1 else '+'}{abs(point - 1):02}"


def float_text(value, single):
    """float4out and float8out with extra_float_digits above 0."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    kind = numpy.float32 if single else numpy.float64
    digits = numpy.format_float_scientific(kind(value), unique=True) if single else repr(value)
    if abs(value) >= (2**24 if single else 2**53):
        digits = not_half_way(value, kind, digits)
    return shortest(digits, 6 if single else 15)


def not_half_way(value, kind, digits):
    """PostgreSQL never ends exactly half-way to a neighbour, where only the rule for ties leads back; it writes as many
    digits more as it takes. Only numbers from 2^53 (2^24) on have so few digits half-way."""
    with decimal.localcontext(prec=2000), numpy.errstate(over="ignore"):
        sides = (float(numpy.nextafter(kind(value), kind(side))) for side in ("-inf", "inf"))
        half_way = [(decimal.Decimal(value) + decimal.Decimal(side)) / 2 for side in sides if math.isfinite(side)]
        places = len(decimal.Decimal(digits).normalize().as_tuple().digits)
        while decimal.Decimal(digits) in half_way:
            digits = numpy.format_float_scientific(kind(value), precision=places, unique=False)
            places += 1
    return digits


@functools.lru_cache(maxsize=100_000)
def civil(days):
    """Year (0 is 1 BC), month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar."""
    era, day = divmod(days + 719_468, 146_097)
    year_of_era = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year_of_era + year_of_era // 4 - year_of_era // 100
    shifted = (5 * day + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day - (153 * shifted + 2) // 5 + 1


def date_parts(days):
    year, month, day = civil(days)
    return (f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}", "" if year > 0 else " BC")


def date(days):
    return "".join(date_parts(days))


def clock(micros):
    seconds, micros = divmod(micros, SECOND)
    fraction = f".{micros:06}".rstrip("0") if micros else ""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def timestamp(micros, suffix):
    days, rest = divmod(micros, DAY)
    text, era = date_parts(days)
    return f"{text} {clock(rest)}{suffix}{era}"


def uuid(value):
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


SCALARS = (
    (pa.types.is_boolean, None, lambda value: "t" if value else "f"),
    (pa.types.is_integer, None, str),
    (pa.types.is_fixed_size_binary, None, uuid),
    (lambda arrow: pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow), None, lambda value: "\\x" + value.hex()),
    (pa.types.is_date32, pa.int32(), date),
    (lambda arrow: arrow == pa.time64("us"), pa.int64(), clock),
)


# --- What is made of others.

ARRAY_QUOTED = re.compile(r'["\\{} \t\n\r\v\f]')
RECORD_QUOTED = re.compile(r'["\\(), \t\n\r\v\f]')
RANGE_QUOTED = re.compile(r'["\\()\[\], \t\n\r\v\f]')


def array_item(text, delimiter):
    """array_out: backslashes before quotes and backslashes."""
    if text is None:
        return "NULL"
    if text == "" or text.upper() == "NULL" or delimiter in text or ARRAY_QUOTED.search(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def doubled(text, needs_quotes):
    """record_out and range_out: quotes and backslashes doubled."""
    if text == "" or needs_quotes.search(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'
    return text


def lists(array, kind):
    if kind.what == "array":
        item, separator, ends = functools.partial(array_item, delimiter=kind.delimiter), kind.delimiter, "{}"
    elif kind.what == "multirange":
        item, separator, ends = str, ",", "{}"
    else:  # pgvector
        item, separator, ends = str, ",", "[]"
    offsets = array.offsets.to_pylist()
    first = offsets[0] if offsets else 0
    last = offsets[-1] if offsets else 0
    element = kind.parts[0] if kind.parts else kind
    items = [item(text) for text in texts(array.values[first:last], element)]
    valid = pc.is_valid(array).to_pylist()
    return [
        ends[0] + separator.join(items[start - first : end - first]) + ends[1] if there else None
        for there, start, end in zip(valid, offsets, offsets[1:])
    ]


def structs(array, kind):
    if len(kind.parts) != (1 if kind.what == "range" else array.type.num_fields):
        raise TypeError(f"{kind.name} is not {array.type}")
    parts = kind.parts if kind.what == "composite" else (*kind.parts * 2, *(Kind("boolean"),) * 3)
    columns = [texts(column, part) for column, part in zip(array.flatten(), parts)]
    rows = zip(*columns)
    if kind.what == "composite":
        values = ("(" + ",".join("" if v is None else doubled(v, RECORD_QUOTED) for v in row) + ")" for row in rows)
    else:
        values = (range_text(*row) for row in rows)
    return [value if there else None for there, value in zip(pc.is_valid(array).to_pylist(), values)]


def range_text(lower, upper, lower_inc, upper_inc, empty):
    if empty is None:  # The range itself is NULL.
        return None
    if empty == "t":
        return "empty" if (lower, upper, lower_inc, upper_inc) == (None, None, "f", "f") else "an empty range with bounds"
    bounds = ["" if bound is None else doubled(bound, RANGE_QUOTED) for bound in (lower, upper)]
    return ("[" if lower_inc == "t" else "(") + ",".join(bounds) + ("]" if upper_inc == "t" else ")")


def hstore(pairs):
    """hstore_out: everything in quotes but NULL."""

    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ", ".join(f"{quoted(key)}=>{'NULL' if value is None else quoted(value)}" for key, value in pairs)
