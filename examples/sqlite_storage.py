"""An adapter of one's own: a `wren.Storage` in a single SQLite file.

    python examples/sqlite_storage.py objects.db README.md pyproject.toml

stores the files named and lists what the database holds. The point is the class: it is
a complete adapter, and it passes wren's conformance suite. See `conformance/README.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from anyio import to_thread

import wren
from wren.storage.keys import check_key, check_keys, check_range
from wren.storage.pages import Pages

T = TypeVar("T")

# A key is a BLOB of UTF-8, so that SQLite orders keys as a listing promises: by bytes.
SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    key BLOB PRIMARY KEY, data BLOB NOT NULL, modified REAL NOT NULL,
    version INTEGER NOT NULL
)"""
GET = """
SELECT substr(data, :start + 1, ifnull(:length, length(data)))
FROM objects WHERE key = :key
"""
PUT = """
INSERT INTO objects VALUES (:key, :data, :modified, abs(random()))
ON CONFLICT (key) DO UPDATE
SET data = excluded.data, modified = excluded.modified, version = excluded.version
"""
PUT_IF_ABSENT = """
INSERT INTO objects VALUES (:key, :data, :modified, abs(random()))
ON CONFLICT (key) DO NOTHING
"""
HEAD = "SELECT key, length(data), modified, version FROM objects"
PAGE = f"""
{HEAD}
WHERE key > :last AND key >= :first AND substr(key, 1, length(:first)) = :first
ORDER BY key LIMIT 1000
"""


class SQLiteStorage:
    """Objects as rows of one table. The file is made when it is first needed."""

    name = "sqlite"
    capabilities = wren.StorageCapabilities(grants=False, conditional_grants=False)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # one statement at a time on the one connection
        self._closed = False

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `wren.Storage.get`."""
        check_range(start, stop)
        check_key(key)
        length = None if stop is None else stop - start

        def read(database: sqlite3.Connection) -> bytes:
            found = {"key": key.encode(), "start": start, "length": length}
            row = database.execute(GET, found).fetchone()
            return self._found(row, key)[0] or b""  # of an empty BLOB it is NULL

        return await self._run(read)

    async def put(
        self, key: str, data: wren.Buffer, *, if_absent: bool = False
    ) -> None:
        """See `wren.Storage.put`."""
        check_key(key)

        def write(database: sqlite3.Connection) -> int:
            statement = PUT_IF_ABSENT if if_absent else PUT
            values = {"key": key.encode(), "data": data, "modified": time.time()}
            return database.execute(statement, values).rowcount

        if not await self._run(write):
            raise wren.KeyExistsError(store=self.name, key=key)

    async def head(self, key: str) -> wren.ObjectInfo:
        """See `wren.Storage.head`."""
        check_key(key)

        def look(database: sqlite3.Connection) -> wren.ObjectInfo:
            row = database.execute(f"{HEAD} WHERE key = ?", (key.encode(),)).fetchone()
            return _info(self._found(row, key))

        return await self._run(look)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `wren.Storage.delete`."""
        rows = [(key.encode(),) for key in check_keys(keys)]

        def remove(database: sqlite3.Connection) -> None:
            # The cursor must not leave the thread: its end is a call, too.
            database.executemany("DELETE FROM objects WHERE key = ?", rows)

        await self._run(remove)

    def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[wren.ObjectInfo]:
        """See `wren.Storage.list`. Reads a thousand rows at a time."""
        last = start_after.encode("utf-8", "surrogatepass")
        first = prefix.encode("utf-8", "surrogatepass")

        async def page() -> list[wren.ObjectInfo]:
            nonlocal last
            bounds = {"last": last, "first": first}
            found = await self._run(
                lambda database: database.execute(PAGE, bounds).fetchall()
            )
            last = found[-1][0] if found else last
            return [_info(row) for row in found]

        return Pages(page)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> NoReturn:
        """Refuse: nobody can be let into one row of a file."""
        check_key(key)
        self._check_open()
        raise wren.UnsupportedError("no grants", store=self.name, key=key)

    async def aclose(self) -> None:
        """See `wren.Storage.aclose`."""
        self._closed = True
        await to_thread.run_sync(self._disconnect)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work on the database, in a thread, as one transaction."""
        self._check_open()
        try:
            return await to_thread.run_sync(self._transact, work)
        except sqlite3.OperationalError as exc:  # locked, disk full, not writable, …
            raise wren.TransientError(str(exc), store=self.name) from exc

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._database is None:
                connect = sqlite3.connect(self._path, check_same_thread=False)
                self._database = connect
                connect.execute(SCHEMA)
            with self._database as database:
                return work(database)

    def _disconnect(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _check_open(self) -> None:
        if self._closed:
            raise wren.StorageError("the store is closed", store=self.name)

    def _found(self, row: T | None, key: str) -> T:
        if row is None:
            raise wren.KeyNotFoundError(store=self.name, key=key)
        return row


def _info(row: tuple[bytes, int, float, int]) -> wren.ObjectInfo:
    key, size, modified, version = row
    when = datetime.fromtimestamp(modified, UTC)
    return wren.ObjectInfo(
        key=key.decode(), size=size, modified=when, etag=str(version)
    )


async def main(database: Path, files: list[Path]) -> None:
    """Store the files by their names, and list everything."""
    store = SQLiteStorage(database)
    try:
        for path in files:
            await store.put(path.name, await to_thread.run_sync(path.read_bytes))
        async for info in store.list():
            print(f"{info.size:10,}  {info.key}")
    finally:
        await store.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=SQLiteStorage.__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.database, arguments.files))
