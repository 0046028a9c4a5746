from collections.abc import Callable
from typing import Any

HANDLERS: tuple[tuple[str, dict[str, Callable[..., Any]]], ...]
