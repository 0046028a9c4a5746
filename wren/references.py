"""Which modules a pickle or a code object refers to, found without importing them."""

from __future__ import annotations

import dis
import pickle
import re
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from itertools import repeat
from types import CodeType
from typing import Any, Final, TypeAlias, cast

Buffer: TypeAlias = bytes | bytearray | memoryview

_IMPORT_NAME: Final = dis.opmap["IMPORT_NAME"]
_IMPORT_FUNCTIONS: Final = frozenset({"import_module", "__import__"})
_IMPORTERS: Final = frozenset(
    {
        ("builtins", "__import__"),
        ("cloudpickle.cloudpickle", "subimport"),
        ("importlib", "import_module"),
    }
)
_MODULE_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def referenced_modules(pickled: Buffer) -> set[str]:
    """Return the names of the modules that a pickle needs where it is loaded.

    These are the modules that unpickling imports, and those that the functions in it
    import when they are called, as far as their code names them. Nothing is imported
    and no code from the pickle runs. Among the names may be some that are attributes
    of a module, as ``from a import b`` does not say what ``b`` is.

    Args:
        pickled: Made by cloudpickle, protocol 4 or later. Buffers that are outside of
            it are not needed.
    """
    probe = _Probe(Skimmer(memoryview(pickled)))
    probe.load()
    return probe.found


def imports_of(code: CodeType, package: str) -> Iterator[str]:
    """Yield the names of the modules that a piece of code imports.

    Code inside of it counts, too. ``from a import b`` yields ``a`` and ``a.b``. Where
    `importlib.import_module` is called, every text that could be its argument counts.

    Args:
        code: Of a function or a module.
        package: What relative imports are relative to; may be empty.
    """
    todo = [code]
    while todo:
        code = todo.pop()
        todo.extend(const for const in code.co_consts if isinstance(const, CodeType))
        # Looking for one byte first: disassembling costs a hundred times as much.
        if _IMPORT_NAME in code.co_code[::2]:
            yield from _import_statements(code, package)
        if not _IMPORT_FUNCTIONS.isdisjoint(code.co_names):
            for const in code.co_consts:
                if isinstance(const, str) and _MODULE_NAME.fullmatch(const):
                    yield const


def _import_statements(code: CodeType, package: str) -> Iterator[str]:
    level: object = None
    names: object = None
    for instruction in dis.get_instructions(code):
        if instruction.opcode == dis.EXTENDED_ARG:  # it belongs to the next one
            continue
        if instruction.opcode == _IMPORT_NAME:
            relative = level if isinstance(level, int) else 0
            try:
                module = resolve_name("." * relative + instruction.argval, package)
            except ImportError:  # beyond the top: it fails wherever it runs
                continue
            yield module
            yield from (f"{module}.{name}" for name in _fromlist(names))
        level, names = names, instruction.argval


def _fromlist(names: object) -> list[str]:
    if not isinstance(names, tuple):
        return []
    return [name for name in cast("tuple[str, ...]", names) if name != "*"]


class _Inert(type):
    """The type of `_Stand`: what it is asked to do, it does not."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    def __setitem__(cls, key: Any, value: Any) -> None:
        pass


class _Stand(metaclass=_Inert):
    """Stands in for everything that a pickle refers to by name, and for its results.

    It is a class because some opcodes insist on one, and has what they call.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    @staticmethod
    def _ignore(*args: Any) -> None:
        pass

    __setstate__ = append = extend = add = _ignore


class _Probe(pickle.Unpickler):
    """Goes through the motions of unpickling and notes what would be imported.

    That is exact where looking at the object graph is a guess: whatever an object's own
    pickling support does has been done already.
    """

    def __init__(self, file: Skimmer) -> None:
        super().__init__(file, buffers=repeat(b""))
        self.found: set[str] = set()
        self._special: dict[tuple[str, str], Callable[..., Any]] = {
            ("cloudpickle.cloudpickle", "_builtin_type"): _builtin_type,
            ("cloudpickle.cloudpickle", "_make_function"): self._function,
            **dict.fromkeys(_IMPORTERS, self._import),
        }

    def find_class(self, module: str, name: str, /) -> Any:
        self.found.add(module)
        return self._special.get((module, name), _Stand)

    def _import(self, name: object, *_: object) -> Any:
        if isinstance(name, str):
            self.found.add(name)
        return _Stand

    def _function(self, code: object, namespace: object, *_: object) -> Any:
        if isinstance(code, CodeType) and isinstance(namespace, dict):
            package = _package_of(cast("dict[str, object]", namespace))
            self.found.update(imports_of(code, package))
        return _Stand


def _package_of(namespace: dict[str, object]) -> str:
    package = namespace.get("__package__")
    if isinstance(package, str):
        return package
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return ""
    return name if "__path__" in namespace else name.rpartition(".")[0]


def _builtin_type(name: object) -> Any:
    return _code if name == "CodeType" else _Stand


def _code(*args: Any) -> Any:
    try:
        return CodeType(*args)
    except (TypeError, ValueError):  # not made by this Python
        return _Stand


class Skimmer:
    """An unpickler's file; long byte strings come out of it with undefined content.

    The unpickler asks for a long one by passing the memory to fill. As nobody looks at
    the content, it is not copied, and the memory is never touched.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        start = self._position
        self._position = min(start + count, len(self._view))
        return bytes(self._view[start : self._position])

    def readinto(self, target: Any, /) -> int:
        """Skip as many bytes as ``target`` has room for; return how many there were."""
        start = self._position
        self._position = min(start + len(target), len(self._view))
        return self._position - start

    def readline(self) -> bytes:
        """Return the rest of the line."""
        # Only text opcodes of protocol 0 ask for lines.
        rest = bytes(self._view[self._position :])
        line = rest[: rest.find(b"\n") + 1] or rest
        self._position += len(line)
        return line
