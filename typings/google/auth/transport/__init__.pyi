from typing import Protocol

class Response(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def data(self) -> bytes: ...

class Request(Protocol):
    def __call__(self, url: str, method: str = ...) -> Response: ...
