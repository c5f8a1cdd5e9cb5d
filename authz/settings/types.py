"""Of which type a value in a file of settings must be: there nothing is text that need not be."""

from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

_WORDS: dict[type, str] = {
    bool: "must be true or false, without quotes",
    int: "must be a whole number, without quotes",
    float: "must be a number, without quotes",
    str: "must be text; put it in quotes if it looks like something else",
    list: "must be a list of texts, or one text",
}


def type_of(annotation: Any) -> type:
    """Return the type of a setting: ``bool``, ``int``, ``float``, ``str``, or ``list`` for texts."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Literal:
        return str
    if isinstance(annotation, UnionType):
        return type_of(parts[0])
    origin = get_origin(annotation) or annotation
    if origin not in _WORDS and parts:
        # Annotated, which pydantic unwraps at the top only.
        return type_of(parts[0])
    return origin if origin in _WORDS else str


def check_type(value: object, annotation: Any) -> str:
    """Return what is wrong with the type of a value; empty if nothing is.

    Args:
        value: of a file.
        annotation: of the setting.

    """
    wanted = type_of(annotation)
    if wanted is list:
        texts = [value] if isinstance(value, str) else value
        if texts == [] and isinstance(texts, list):
            return "must not be empty: remove it, or give it a value"
        is_good = isinstance(texts, list) and all(isinstance(each, str) for each in texts)
    elif wanted is float:
        is_good = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        is_good = type(value) is wanted
    return "" if is_good else _WORDS[wanted]
