"""What can be wrong with an emulator."""

from __future__ import annotations

from wren.errors import ConfigurationError, WrenError


class EmulatorError(WrenError):
    """A server did not start, or did not install; the message has its output."""


class NotInstalledError(ConfigurationError):
    """A server is not installed on this machine; the message has the command."""
