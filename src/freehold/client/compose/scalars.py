"""What a plain YAML scalar means: the core schema of YAML 1.2, as Docker Compose reads it.

`yes`, `no`, `on`, `off` and `22:22` are text here; YAML 1.1 readers make booleans and sexagesimal numbers of them.
"""

import math
import re
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(
    r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z",
    re.ASCII,
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z", re.ASCII)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\Z", re.ASCII)
_MAX_NUMBER_CHARACTERS = 64
_INT64 = 1 << 63
_CORE = "tag:yaml.org,2002:"


class TagError(ValueError):
    """The tag is not one of the core schema, or the value does not fit it."""


def resolve_plain(text: str) -> Scalar:
    """Give an untagged, unquoted scalar its value.

    Whole numbers out of 64 bits become floating point; infinities and not-a-number stay text.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if len(text) > _MAX_NUMBER_CHARACTERS:
        return text
    number = _parse_integer(text) if _INTEGER.match(text) and text != "-0" else None
    if number is not None:
        return number
    digits = text.replace("_", "")
    if _FLOAT.match(digits) and not text.startswith("_"):
        value = float(digits)
        return value if math.isfinite(value) else text
    return text


def resolve_tagged(text: str, tag: str) -> Scalar:
    """Give a scalar with an explicit tag its value.

    Raises:
        TagError: an unknown tag, or a value that does not fit it.
    """
    kind = tag.removeprefix(_CORE)
    if kind == "str" or tag == "!":
        return text
    value = resolve_plain(text)
    fits = {
        "null": value is None,
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
    }
    if tag == kind or kind not in fits:
        raise TagError(f"the tag {tag[:60]} is not supported")
    if not fits[kind]:
        raise TagError(f"the value is not of the type that its tag !!{kind} says")
    return float(value) if kind == "float" and isinstance(value, int) else value


def is_sexagesimal(text: str) -> bool:
    """Whether a YAML 1.1 reader would turn this unquoted text into a number of base 60."""
    return _SEXAGESIMAL.match(text) is not None


def format_scalar(value: Scalar) -> str:
    """Write a value as Compose does where it needs text: `true`, `16`, `1.1`, `1e+21`."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _format_float(value)


def _format_float(value: float) -> str:
    """Shortest form that reads back, with an exponent below 10^-4 and from 10^21 on, as Go's %v writes it."""
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent and -4 <= int(exponent) < 21:
        return f"{value:.0f}"
    if exponent:
        return f"{mantissa.removesuffix('.0')}e{int(exponent):+03d}"
    return mantissa.removesuffix(".0")


def _parse_integer(text: str) -> int | None:
    digits = text.lstrip("+-").replace("_", "")
    octal = ("0", 8) if len(digits) > 1 and digits[0] == "0" else ("", 10)
    marked = (pair for pair in (("0x", 16), ("0o", 8), ("0b", 2)) if digits.startswith(pair[0]))
    prefix, base = next(marked, octal)
    try:
        number = int(digits.removeprefix(prefix), base)
    except ValueError:  # only underscores after the prefix
        return None
    if text.startswith("-"):
        number = -number
    return number if -_INT64 <= number < 2 * _INT64 else None
