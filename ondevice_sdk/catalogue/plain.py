"""Make frozen dataclasses from plain data (TOML, JSON), strictly.

An unknown key, a missing one and a wrong type are errors.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ondevice_sdk.errors import ConfigurationError

T = TypeVar("T")


def build(cls: type[T], data: object, where: str) -> T:
    """Make a `cls` from a table. `where` names the place in error messages.

    Raises:
        ConfigurationError: the data does not have the form of `cls`.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{where}: a table is expected")
    assert dataclasses.is_dataclass(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigurationError(f"{where}: unknown key {unknown[0]!r}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigurationError(f"{where}: the key {name!r} is missing")
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _value(hint: Any, value: object, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"{where}: a list is expected")
        return tuple(_value(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Literal:
        if value not in args:
            raise ConfigurationError(f"{where}: one of {', '.join(map(str, args))} is expected")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = (arg for arg in args if arg is not type(None))
        return _value(inner, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but `layers = true` is a mistake
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigurationError(f"{where}: {hint.__name__} is expected")
    return value
