"""The archive that becomes a function."""

from __future__ import annotations

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from wren.errors import ConfigurationError
from wren.package import Package
from wren.requirements import Target
from wren.worker import versions

TARGET = Target("3.11")
ENTRY = {"handler.py": b"import wren.worker\n"}


def unzip(data: bytes) -> zipfile.ZipFile:
    """Open an archive."""
    return zipfile.ZipFile(io.BytesIO(data))


@pytest.mark.anyio
async def test_equal_content_makes_equal_bytes() -> None:
    """A platform compares hashes to see whether anything changed."""
    first = await Package(entry=ENTRY, target=TARGET).build()
    second = await Package(entry=dict(ENTRY), target=TARGET).build()

    assert first.data == second.data


@pytest.mark.anyio
async def test_the_archive_is_small() -> None:
    """Uploads, cold starts: under 200 KB without requirements."""
    built = await Package(entry=ENTRY, target=TARGET).build()

    assert len(built.data) < 200_000
    assert built.unzipped == sum(info.file_size for info in unzip(built.data).filelist)


@pytest.mark.anyio
async def test_everybody_may_read_what_is_in_it() -> None:
    """A platform runs the function as another user than the one that unpacked it."""
    built = await Package(entry=ENTRY, target=TARGET).build()

    modes = {info.external_attr >> 16 for info in unzip(built.data).filelist}
    assert modes == {0o100644}


@pytest.mark.anyio
async def test_a_worker_runs_from_the_archive_alone(tmp_path: Path) -> None:
    """With the standard library and nothing installed, whatever it is asked to do."""
    built = await Package(entry=ENTRY, target=TARGET).build()
    file = tmp_path / "function.zip"
    file.write_bytes(built.data)
    code = "import handler, wren.worker; print(wren.worker.versions())"

    start = f"import sys; sys.path[0] = {str(file)!r}; {code}"
    done = await anyio.run_process([sys.executable, "-I", "-S", "-c", start])

    assert done.stderr == b""
    assert done.stdout.decode().strip() == str(versions())


def test_the_fingerprint_changes_with_anything_that_goes_in(tmp_path: Path) -> None:
    """Another function, then; and the same one when nothing changes."""
    file = tmp_path / "requirements.txt"
    file.write_text("six\n")
    plain = Package(entry=ENTRY, target=TARGET)
    others = [
        replace(plain, entry={"handler.py": b""}).fingerprint(),
        replace(plain, entry={"other.py": ENTRY["handler.py"]}).fingerprint(),
        replace(plain, target=Target("3.12")).fingerprint(),
        replace(plain, requirements=file).fingerprint(),
        plain.fingerprint(2048),
        plain.fingerprint(),
    ]

    assert len(set(others)) == len(others)
    assert plain.fingerprint() == Package(entry=ENTRY, target=TARGET).fingerprint()
    assert all(len(each) == 12 and int(each, 16) for each in others)


def test_the_fingerprint_sees_a_file_that_the_requirements_name(tmp_path: Path) -> None:
    """What is in a constraints file is as much part of it."""
    file = tmp_path / "requirements.txt"
    nested = tmp_path / "constraints.txt"
    file.write_text("six\n-c constraints.txt\n")
    wanted = Package(entry=ENTRY, target=TARGET, requirements=file)

    nested.write_text("six<2\n")
    before = wanted.fingerprint()
    nested.write_text("six<3\n")

    assert wanted.fingerprint() != before


@pytest.mark.parametrize(
    "line", ["-e .", "./mine", "../mine", "/opt/mine", "file:///m"]
)
def test_a_package_of_this_machine_is_refused(tmp_path: Path, line: str) -> None:
    """Its content could change without the text of the file."""
    file = tmp_path / "requirements.txt"
    file.write_text(f"six\n{line}\n")

    with pytest.raises(ConfigurationError, match="is on this machine"):
        Package(entry=ENTRY, target=TARGET, requirements=file).fingerprint()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Also when another file names it."""
    file = tmp_path / "requirements.txt"
    file.write_text("-r more.txt\n")

    with pytest.raises(ConfigurationError, match=r"more\.txt: No such file"):
        Package(entry=ENTRY, target=TARGET, requirements=file).fingerprint()
