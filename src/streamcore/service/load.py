"""Makes a service from a specification: a built-in service, an entry point of the group `streamcore.services`, or a
class in a Python file.

A table lists the built-in services, so a run with only those need not read the metadata of installed packages.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from keyword import iskeyword
from types import ModuleType
from typing import Any, NamedTuple

from streamcore.core.errors import UsageError
from streamcore.service.protocol import ALLOWED, Service
from streamcore.service.specification import POSITIONAL, parse_specification

ENTRY_POINTS = "streamcore.services"
BUILT_IN = {
    "identity": "streamcore.service.identity:Identity",
    "count": "streamcore.service.count:Count",
    "slice": "streamcore.service.slice:Slice",
    "dedup": "streamcore.service.dedup:Dedup",
    "anonymise": "streamcore.service.anonymise:Anonymise",
    "decapsulate": "streamcore.service.decapsulate:Decapsulate",
    "scan": "streamcore.service.scan:Scan",
}


def load(specification: str | Mapping[str, Any]) -> Service:
    """The service that the specification names, made with its options. Raises UsageError with one line that says what
    to do.
    """
    name, kind, options = resolve(specification)
    options = {f"{option}_" if iskeyword(option) else option: value for option, value in options.items()}  # as in from_
    _check_options(name, kind, options)
    try:
        return kind(**options)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"service {name}: {_one_line(error)}") from error


def resolve(specification: str | Mapping[str, Any]) -> tuple[str, type[Service], dict[str, Any]]:
    """(name, class, options by name) of a specification; makes no object. Raises UsageError."""
    name, options = parse_specification(specification)
    kind = find(name)
    return name, kind, _name_the_first(name, kind, options) if POSITIONAL in options else options


def find(name: str) -> type[Service]:
    """The class of that name; makes no object. Raises UsageError."""
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _checked(name, _get(name, _run_file(name, path), attribute))
    if target := BUILT_IN.get(name):
        module, _, attribute = target.partition(":")
        return _checked(name, getattr(importlib.import_module(module), attribute))
    for point in _entry_points():
        if point.name == name:
            try:
                return _checked(name, point.load())
            except UsageError:
                raise
            except Exception as error:
                raise UsageError(f"service {name} ({point.value}) cannot be loaded: {_one_line(error)}") from error
    if name.endswith(".py"):
        raise UsageError(f"service {name}: name the class too, as in {name}:ClassName")
    near = _nearest(name, [*BUILT_IN, *(point.name for point in _entry_points())])
    raise UsageError(
        f"there is no service {name!r}{near}: 'streamcore services' lists them, or give path/to/file.py:ClassName"
    )


class Description(NamedTuple):
    """One line of `streamcore services`."""

    name: str
    effect: str
    options: dict[str, str]  # option -> default as written, "" if it is required
    words: str  # the first paragraph of its docstring, or why it cannot be loaded
    origin: str  # module:Class


def describe() -> list[Description]:
    """Every named service on this machine: the built-in ones, then those of entry points."""
    named = list(BUILT_IN.items())
    named += sorted((point.name, point.value) for point in _entry_points() if point.name not in BUILT_IN)
    descriptions = []
    for name, target in named:
        try:
            kind = find(name)
        except (UsageError, ImportError) as error:
            descriptions.append(Description(name, "", {}, _one_line(error), target))
            continue
        words = " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())
        descriptions.append(Description(name, kind.effect, _options(kind), words, target))
    return descriptions


def _entry_points() -> list[Any]:
    from importlib.metadata import entry_points

    return list(entry_points(group=ENTRY_POINTS))


def _run_file(name: str, path: str) -> ModuleType:
    """Run a Python file; returns its module."""
    from importlib.util import module_from_spec, spec_from_file_location

    if not os.path.isfile(path):
        raise UsageError(f"service {name}: there is no file {path}")
    stem = os.path.splitext(os.path.basename(path))[0]
    spec = spec_from_file_location(f"streamcore_service_{stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"service {name}: {path} is not a Python file")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"service {name}: {path} cannot be imported: {_one_line(error)}") from error
    return module


def _get(name: str, module: ModuleType, attribute: str) -> Any:
    if not hasattr(module, attribute):
        near = _nearest(attribute, [key for key, value in vars(module).items() if isinstance(value, type)])
        raise UsageError(f"service {name}: the file has no class {attribute}{near}")
    return getattr(module, attribute)


def _checked(name: str, kind: Any) -> type[Service]:
    """kind, if it is a valid service class."""
    if not isinstance(kind, type):
        raise UsageError(f"service {name}: {kind!r} is not a class")
    if not callable(getattr(kind, "process", None)) or getattr(kind, "process", None) is Service.process:
        raise UsageError(f"service {name}: class {kind.__name__} must define process(self, segment)")
    if not issubclass(kind, Service):
        raise UsageError(f"service {name}: class {kind.__name__} must derive from streamcore.service.protocol.Service")
    if kind.effect not in ALLOWED:
        raise UsageError(f"service {name}: effect must be one of {', '.join(ALLOWED)}, not {kind.effect!r}")
    if not kind.name:
        kind.name = name if name.isidentifier() else kind.__name__.lower()
    return kind


def _signature(kind: type[Service]) -> dict[str, Any]:
    """Option -> parameter of __init__."""
    from inspect import signature

    return {} if kind.__init__ is object.__init__ else dict(signature(kind).parameters)


def _options(kind: type[Service]) -> dict[str, str]:
    return {
        option.rstrip("_").replace("_", "-"): "" if parameter.default is parameter.empty else str(parameter.default)
        for option, parameter in _signature(kind).items()
        if parameter.kind is not parameter.VAR_KEYWORD and not option.startswith("_")
    }


def _name_the_first(name: str, kind: type[Service], options: dict[str, Any]) -> dict[str, Any]:
    """Give a value without a key to the service's first option."""
    accepted = [option.replace("-", "_") for option in _options(kind)]
    if not accepted:
        raise UsageError(f"service {name} takes no options, not {options[POSITIONAL]!r}")
    if accepted[0] in options:
        raise UsageError(f"service {name}: {accepted[0]} is given twice")
    return {accepted[0] if key == POSITIONAL else key: value for key, value in options.items()}


def _check_options(name: str, kind: type[Service], options: dict[str, Any]) -> None:
    parameters = _signature(kind)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    accepted = _options(kind)
    for option in options:
        if option not in parameters:
            known = f"it takes {', '.join(accepted)}" if accepted else "it takes none"
            option = option.rstrip("_")
            raise UsageError(f"service {name} has no option {option!r}{_nearest(option, list(accepted))}: {known}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise UsageError(f"service {name} needs {option}: write {name}:{option}=…")


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1, 0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if isinstance(error, (ValueError, UsageError)) else f"{type(error).__name__}: {words}"
