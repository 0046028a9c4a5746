# The part of cloudpickle that wren uses; cloudpickle ships no types of its own.

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

class _Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...

__version__: str

class CloudPickler(pickle.Pickler):
    def __init__(
        self,
        file: _Writer,
        protocol: int | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    ) -> None: ...
    def reducer_override(self, obj: Any, /) -> Any: ...

def dumps(
    obj: object,
    protocol: int | None = None,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
) -> bytes: ...
def loads(data: bytes | bytearray | memoryview, /) -> Any: ...
def register_pickle_by_value(module: ModuleType) -> None: ...
def unregister_pickle_by_value(module: ModuleType) -> None: ...
