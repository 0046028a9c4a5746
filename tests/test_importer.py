"""A worker imports what it was sent, nothing else, and always the newest."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wren import importer
from wren.errors import IntegrityError

Entry = tuple[str | zipfile.ZipInfo, str | bytes]


def zipped(entries: list[Entry], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def bundle(files: Mapping[str, str], *units: str, version: str = "") -> bytes:
    """Return a bundle whose units have the version given, or one made of the files."""
    made = version or hashlib.sha256(repr(files).encode()).hexdigest()
    manifest = json.dumps(dict.fromkeys(units, made))
    return zipped([*files.items(), (importer.MANIFEST, manifest)])


def hostile(*entries: Entry) -> bytes:
    manifest = json.dumps({"mine": "1"})
    return zipped([("mine/__init__.py", ""), *entries, (importer.MANIFEST, manifest)])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Give each test an importer that has installed nothing, and clean up after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(importer, "_installed", {})
    monkeypatch.setattr(importer, "_current", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "modules"


Install = Callable[[bytes], None]


@pytest.fixture
def install(root: Path) -> Install:
    return lambda data: importer.install(sha256(data), data, str(root))


def get(name: str) -> Any:
    return importlib.import_module(name)


def test_what_was_sent_can_be_imported(install: Install, root: Path) -> None:
    """Packages with their data, and modules outside of any."""
    data = bundle(
        {
            "mine/__init__.py": "from mine.inner import X",
            "mine/inner.py": "X = 1",
            "mine/data/table.csv": "a,b",
            "alone.py": "Y = 2",
        },
        "alone",
        "mine",
    )

    install(data)

    assert get("mine").X == 1
    assert get("alone").Y == 2
    table = Path(get("mine").__file__).parent / "data" / "table.csv"
    assert table.read_text() == "a,b"
    assert importer.installed() == {sha256(data)}
    assert [path.name for path in root.iterdir()] == [sha256(data)]


def test_nobody_else_can_read_it(install: Install, root: Path) -> None:
    """The modules may be secret, and whoever could write there could run code."""
    tool = zipfile.ZipInfo("mine/tool.sh")
    tool.external_attr = (stat.S_IFREG | 0o777) << 16
    mask = os.umask(0)
    try:
        install(hostile((tool, "#!/bin/sh"), ("mine/deep/data", "x")))
    finally:
        os.umask(mask)

    (directory,) = root.iterdir()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "mine/tool.sh").stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "mine/deep/data").stat().st_mode) == 0o600


def test_a_new_version_replaces_one_already_imported(install: Install) -> None:
    """In a notebook, a module is edited and used again by the same workers."""
    install(bundle({"mine.py": "X = 1"}, "mine"))
    old = get("mine")

    install(bundle({"mine.py": "X = 22"}, "mine"))

    assert get("mine").X == 22
    assert old.X == 1


def test_going_back_to_an_older_version_works(install: Install) -> None:
    """An edit may be undone."""
    first = bundle({"mine.py": "X = 1"}, "mine")
    install(first)
    install(bundle({"mine.py": "X = 22"}, "mine"))
    assert get("mine").X == 22

    install(first)

    assert get("mine").X == 1


def test_submodules_are_replaced_with_their_package(install: Install) -> None:
    """Also those that are attributes of it, which ``from`` would find first."""
    install(bundle({"mine/__init__.py": "", "mine/inner.py": "X = 1"}, "mine"))
    assert get("mine.inner").X == 1

    install(bundle({"mine/__init__.py": "", "mine/inner.py": "X = 22"}, "mine"))

    namespace: dict[str, Any] = {}
    exec("from mine import inner", namespace)  # noqa: S102
    assert namespace["inner"].X == 22


def test_an_unchanged_module_stays_the_same_object(install: Install) -> None:
    """Otherwise two functions would disagree about the class of the same objects."""
    install(
        zipped(
            [
                ("shared.py", "class Point: pass"),
                ("one.py", ""),
                (importer.MANIFEST, json.dumps({"one": "1", "shared": "s"})),
            ]
        )
    )
    point = get("shared").Point

    install(bundle({"shared.py": "class Point: pass"}, "shared", version="s"))

    assert get("shared").Point is point


def test_what_came_with_a_changed_module_is_replaced_too(install: Install) -> None:
    """It may have taken functions from it: ``from helper import f``."""
    user = ("user.py", "from helper import X")
    helpers = [("helper.py", "X = 1"), ("helper.py", "X = 22")]
    for number, helper in enumerate(helpers):
        versions = {"user": "same", "helper": str(number)}
        manifest = importer.MANIFEST, json.dumps(versions)
        install(zipped([user, helper, manifest]))
        if number == 0:
            assert get("user").X == 1

    assert get("user").X == 22


def test_a_user_of_a_module_that_changed_elsewhere_is_replaced(
    install: Install,
) -> None:
    """Another function's bundle brings the change, the next one its user."""
    user = ("user.py", "from helper import X")

    def both(content: str, version: str) -> bytes:
        versions = json.dumps({"user": "same", "helper": version})
        return zipped([user, ("helper.py", content), (importer.MANIFEST, versions)])

    install(both("X = 1", "1"))
    assert get("user").X == 1
    install(bundle({"helper.py": "X = 22"}, "helper", version="2"))
    install(both("X = 22", "2"))

    assert get("user").X == 22


def test_unrelated_bundles_do_not_disturb_each_other(install: Install) -> None:
    """Several functions take turns on one worker."""
    install(bundle({"one.py": "X = 1"}, "one"))
    one = get("one")

    install(bundle({"two.py": "X = 2"}, "two"))

    assert get("one") is one
    assert get("two").X == 2


def test_it_wins_over_a_module_found_elsewhere(
    install: Install, tmp_path: Path
) -> None:
    """An installed or imported module of that name is older than what was sent."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "mine.py").write_text("X = 'stale'")
    sys.path.insert(0, str(place))
    assert get("mine").X == "stale"

    install(bundle({"mine.py": "X = 1"}, "mine"))

    assert get("mine").X == 1


def test_parts_of_a_namespace_package_come_together(install: Install) -> None:
    """Each function brings only the parts that it reaches."""
    install(bundle({"space/one.py": "X = 1"}, "space.one"))
    assert get("space.one").X == 1

    install(bundle({"space/two/__init__.py": "X = 2"}, "space.two"))
    assert get("space.two").X == 2

    install(bundle({"space/one.py": "X = 11"}, "space.one"))
    namespace: dict[str, Any] = {}
    exec("from space import one, two", namespace)  # noqa: S102
    assert namespace["one"].X == 11
    assert namespace["two"].X == 2


def test_a_folder_may_become_a_package_and_stop_to(install: Install) -> None:
    """A regular package anywhere on the path would hide a namespace package."""
    bare = bundle({"space/one.py": "X = 1"}, "space.one")
    package = bundle({"space/__init__.py": "P = 1", "space/one.py": "X = 22"}, "space")
    install(bare)
    assert get("space.one").X == 1

    install(package)
    assert get("space").P == 1
    assert get("space.one").X == 22

    install(bare)
    assert get("space.one").X == 1
    assert not hasattr(get("space"), "P")


def test_the_path_does_not_grow_with_every_edit(install: Install) -> None:
    """A notebook may send a thousand versions to one worker."""
    before = len(sys.path)

    for number in range(10):
        install(bundle({"mine.py": f"X = {number}"}, "mine"))

    assert len(sys.path) == before + 1


def test_installing_again_changes_nothing(install: Install) -> None:
    """A worker that forgot a function is sent the same bundle again."""
    data = bundle({"mine.py": "X = 1"}, "mine")
    install(data)
    mine = get("mine")
    path = [*sys.path]

    install(data)

    assert get("mine") is mine
    assert sys.path == path


def test_a_directory_that_was_removed_is_made_again(
    install: Install, root: Path
) -> None:
    """Temporary directories are swept by others."""
    data = bundle({"mine.py": "X = 1"}, "mine")
    install(data)
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    install(data)

    assert get("mine").X == 1


def _info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def _manifest(text: str | bytes, file: str = "mine/__init__.py") -> bytes:
    return zipped([(file, ""), (importer.MANIFEST, text)])


def _twice(name: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hostile((name, "1"), (name, "2"))


def _renamed(old: bytes, new: bytes) -> bytes:
    return hostile((old.decode(), "x")).replace(old, new)


def _overlapping() -> bytes:
    """Return an archive with many entries that share one piece of data."""
    data = bytearray(hostile(("mine/a", bytes(1_000_000))))
    archive = zipfile.ZipFile(io.BytesIO(bytes(data)))
    shared = next(info for info in archive.infolist() if info.filename == "mine/a")
    buffer = io.BytesIO(bytes(data))
    with zipfile.ZipFile(buffer, "a") as opened:
        for number in range(200):
            info = zipfile.ZipInfo(f"mine/b{number}")
            info.header_offset = shared.header_offset
            info.CRC, info.compress_size = shared.CRC, shared.compress_size
            info.file_size, info.compress_type = shared.file_size, zipfile.ZIP_DEFLATED
            opened.filelist.append(info)
            opened._didModify = True  # type: ignore[attr-defined]
    return buffer.getvalue()


HOSTILE: dict[str, bytes] = {
    "absolute": hostile(("/tmp/evil.py", "")),  # noqa: S108
    "above": hostile(("../evil.py", "")),
    "above, from inside": hostile(("mine/../../evil.py", "")),
    "dot": hostile(("mine/./x", "")),
    "empty part": hostile(("mine//x", "")),
    "backslash": hostile(("mine/x\\..\\..\\..\\evil.py", "")),
    "drive": hostile(("C:/evil.py", "")),
    "nul": _renamed(b"mine/evil", b"mine/e\0il"),
    "link": hostile((_info("mine/link", stat.S_IFLNK | 0o777), "/etc/passwd")),
    "device": hostile((_info("mine/device", stat.S_IFCHR | 0o666), "")),
    "folder": hostile((_info("mine/folder/", stat.S_IFDIR | 0o777), "")),
    "outside of its units": hostile(("evil.py", "")),
    "shadows the standard library": hostile(("json.py", "")),
    "same name twice": _twice("mine/x"),
    "file inside a file": hostile(("mine/x", ""), ("mine/x/y", "")),
    "no manifest": zipped([("mine/__init__.py", "")]),
    "manifest is not JSON": _manifest("{"),
    "manifest is not text": _manifest(b"\xff\xfe\xfd"),
    "manifest is a list": _manifest('["mine"]'),
    "manifest is deep": _manifest("[" * 100_000),
    "manifest has no versions": _manifest('{"mine": 1}'),
    "brings a path": _manifest('{"../mine": "1"}'),
    "brings nothing": _manifest('{"": "1"}'),
    "brings a folder": _manifest('{"mine.": "1"}'),
    "brings what is above": _manifest('{"..": "1"}'),
    "brings another drive": _manifest('{"C:x": "1"}'),
    "brings json": _manifest('{"json": "1"}', "json.py"),
    "brings a part of json": _manifest('{"json.evil": "1"}', "json/evil.py"),
    "brings wren": _manifest('{"wren.worker": "1"}', "wren/worker.py"),
    "brings cloudpickle": _manifest('{"cloudpickle": "1"}', "cloudpickle.py"),
    "brings __main__": _manifest('{"__main__": "1"}', "__main__.py"),
    "not a zip": b"PK but not really",
    "empty": b"",
    "truncated": hostile()[:-10],
    "corrupt": hostile(("mine/x", "hello" * 99)).replace(b"\xcbH\xcd\xc9", b"1234"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_bundle_is_refused_and_leaves_nothing(
    data: bytes, install: Install, root: Path, tmp_path: Path
) -> None:
    """A bundle may come through storage; the hash is not the only defence."""
    path = [*sys.path]

    with pytest.raises(IntegrityError):
        install(data)

    assert list(root.iterdir()) == []
    assert list(tmp_path.iterdir()) == [root]
    assert sys.path == path
    assert importer.installed() == set()


def test_entries_that_share_their_data_are_refused(
    install: Install, root: Path
) -> None:
    """A zip of a megabyte can hold a terabyte in this way."""
    with pytest.raises(IntegrityError, match="would unpack to 201"):
        install(_overlapping())

    assert list(root.iterdir()) == []


def test_the_hostile_bundles_differ_from_a_good_one(install: Install) -> None:
    """They are refused for what is wrong with them, not for how they are made."""
    install(hostile(("mine/x", "hello"), (_info("mine/y", stat.S_IFREG), "")))

    assert isinstance(get("mine"), ModuleType)


def test_an_oversized_bundle_is_refused_before_it_is_unpacked(
    install: Install, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small zip can fill a disk."""
    monkeypatch.setattr(importer, "MAX_BYTES", 1000)
    monkeypatch.setattr(importer, "_MAX_MANIFEST", 1000)

    with pytest.raises(IntegrityError, match="would unpack to"):
        install(hostile(("mine/x", bytes(2000))))

    assert list(root.iterdir()) == []


def test_the_content_must_be_what_the_name_says(root: Path) -> None:
    """The name is the hash of what the driver packed."""
    data = bundle({"mine.py": "X = 1"}, "mine")

    with pytest.raises(IntegrityError, match="the content of the bundle"):
        importer.install(sha256(b"other"), data, str(root))

    assert not root.exists()


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 63 + "/"])
def test_a_name_that_is_no_hash_is_refused(name: str, root: Path) -> None:
    """It becomes a part of a path."""
    with pytest.raises(IntegrityError, match="SHA-256"):
        importer.install(name, b"", str(root))


def test_a_full_disk_leaves_nothing(
    install: Install, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt then starts from the beginning."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    data = bundle({"mine.py": "X = 1"}, "mine")
    with monkeypatch.context() as context:
        context.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="No space"):
            install(data)
        assert list(root.iterdir()) == []

    install(data)
    assert get("mine").X == 1


_ONE_OF_MANY = """
import sys
from pathlib import Path
from wren import importer

data = Path(sys.argv[1]).read_bytes()
print("ready", flush=True)
sys.stdin.readline()
importer.install(sys.argv[2], data, sys.argv[3])
import mine.last
print(mine.last.X)
"""


def test_many_processes_can_install_at_once(root: Path, tmp_path: Path) -> None:
    """All workers of one machine receive the first bundle at the same moment."""
    files = {f"mine/m{number}.py": "X = 0\n" * 200 for number in range(200)}
    data = bundle({"mine/__init__.py": "", **files, "mine/last.py": "X = 7"}, "mine")
    packed = tmp_path / "bundle"
    packed.write_bytes(data)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ONE_OF_MANY, packed, sha256(data), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]

    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0] for process in processes]

    assert answers == ["7\n"] * len(processes)
    assert [path.name for path in root.iterdir()] == [sha256(data)]


def test_it_loads_nothing_before_a_bundle_comes() -> None:
    """Most functions bring no modules; their workers should not wait for zipfile."""
    code = (
        "import sys; old = set(sys.modules); import wren.importer;"
        "print(*{'zipfile', 'shutil', 'tempfile', 'hashlib'} & {*sys.modules} - old)"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stdout.strip() == ""
