"""Where in a bucket a store keeps its objects."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from wren.config import mask_url
from wren.errors import ConfigurationError
from wren.storage.keys import MAX_KEY_BYTES, check_key


class Location(NamedTuple):
    """A bucket, or an account's container, and what its keys begin with."""

    bucket: str
    prefix: str
    """Ends with a slash, unless it is empty."""

    @classmethod
    def parse(cls, url: str, *, example: str) -> Location:
        """Take a URL such as ``s3://bucket/prefix`` apart. The prefix is optional.

        Args:
            url: What is configured.
            example: A URL that would be accepted, for the error.

        Raises:
            ConfigurationError: It names no bucket, or has a user, a port, a query or a
                prefix that no key can begin with.
        """
        parts = urlsplit(url)
        prefix = unquote(parts.path).strip("/")
        if (
            not parts.netloc
            or set(parts.netloc) & set("@:")
            or "?" in url
            or "#" in url
        ):
            shown = mask_url(url)
            raise ConfigurationError(f"storage = {shown!r}: expected {example}")
        if not prefix:
            return cls(parts.netloc, "")
        try:
            return cls(parts.netloc, f"{check_key(prefix)}/")
        except ValueError as exc:
            shown = mask_url(url)
            raise ConfigurationError(f"storage = {shown!r}: {exc}") from exc

    def full(self, key: str) -> str:
        """Return the object's name in the bucket.

        Raises:
            ValueError: See `check_key`; or the name is too long because of the prefix.
        """
        name = self.prefix + check_key(key)
        size = len(name.encode())
        if self.prefix and size > MAX_KEY_BYTES:
            room = MAX_KEY_BYTES - len(self.prefix.encode())
            raise ValueError(
                f"the key has {len(key.encode())} bytes in UTF-8, and after the"
                f" store's prefix {self.prefix!r} there is room for {room}"
            )
        return name

    def relative(self, name: str) -> str:
        """Return the key of an object of this store, given its name in the bucket."""
        return name[len(self.prefix) :]
