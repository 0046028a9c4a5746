from __future__ import annotations

import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wren import ConfigurationError
from wren.config import Runtime, Settings, explain, load, variable, worker_environment

SECRET = (
    "API_KEY",
    "ARM_CLIENT_ID",
    "AWS_PROFILE",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CONNECTION_STRING",
    "CLIENT_SECRET",
    "DB_PASSWORD",
    "GITHUB_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KEY",
    "MYSQL_PWD",
    "OPENAI_APIKEY",
    "PGPASSWORD",
    "SENTRY_DSN",
    "SERVICE_CREDENTIAL",
    "SSH_KEYS",
    "STORAGE_SAS",
    "TOKEN",
    "WREN_STORAGE",
    "WREN_X",
    "my_token",
)
HARMLESS = ("FORWARDS", "KEYBOARD", "MONKEY", "OLDPWD", "OMP_NUM_THREADS", "PYTHONPATH")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, which is also the current one, and no variables."""
    for name in list(os.environ):
        if name.startswith("WREN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sources() -> dict[str, str]:
    return {row.name: row.source for row in explain() if row.source != "default"}


def test_nothing_needs_to_be_set() -> None:
    """A newcomer runs on this machine without any configuration."""
    settings = load()

    assert settings == Settings()
    assert (settings.backend, settings.retries, settings.timeout) == ("local", 2, None)


def test_each_place_overrides_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argument, environment, wren.toml, pyproject.toml, default, in this order."""
    (home / "pyproject.toml").write_text(
        "[tool.wren]\nmemory = 1\nchunksize = 1\nretries = 1\ntimeout = 1"
    )
    (home / "wren.toml").write_text("chunksize = 2\nretries = 3\ntimeout = 2.5")
    monkeypatch.setenv("WREN_RETRIES", "4")
    monkeypatch.setenv("WREN_TIMEOUT", "3.5")

    settings = load(timeout=7)

    assert settings == Settings(memory=1, chunksize=2, retries=4, timeout=7)
    assert sources() == {
        "memory": str(home / "pyproject.toml"),
        "chunksize": str(home / "wren.toml"),
        "retries": "WREN_RETRIES",
        "timeout": "WREN_TIMEOUT",
    }


def test_every_setting_can_be_set_everywhere(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting is left out of a place, and none is read from a wrong name."""
    texts = {row.name: "7" for row in explain()}
    numbers = {"concurrency", "timeout", "retries", "chunksize"}
    numbers |= {"buffer", "commit_after", "memory"}
    values: dict[str, Any] = {n: 7 if n in numbers else "7" for n in texts}

    for name, text in texts.items():
        monkeypatch.setenv(variable(name), text)
    from_environment = load()
    for name in texts:
        monkeypatch.delenv(variable(name))
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    (home / "wren.toml").write_text("\n".join(lines))
    from_file = load()

    assert from_environment == Settings(**values)
    values["requirements"] = str(home / "7")
    assert from_file == Settings(**values)
    assert load(**values) == Settings(**values)


def test_none_means_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Executor` passes on what it got without looking at each argument."""
    monkeypatch.setenv("WREN_BACKEND", "aws")

    assert load(backend=None).backend == "aws"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and CI systems can set a variable to nothing, but not unset it."""
    monkeypatch.setenv("WREN_STORAGE", "")
    monkeypatch.setenv("WREN_FORMER", "")

    assert load() == Settings()


def test_a_runtime_counts_as_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program says of its function wins over the machine it runs on."""
    monkeypatch.setenv("WREN_MEMORY", "512")
    monkeypatch.setenv("WREN_FUNCTION", "from-outside")

    runtime = Runtime(memory=1024, requirements=Path("needs.txt"))
    settings = load(runtime=runtime, retries=0)

    assert settings.retries == 0
    assert settings.memory == 1024
    assert settings.requirements == "needs.txt"
    assert settings.function == "from-outside"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concurrency", "0"),
        ("concurrency", "many"),
        ("concurrency", "1.5"),
        ("chunksize", "-1"),
        ("buffer", "0"),
        ("memory", "0"),
        ("retries", "-1"),
        ("timeout", "0"),
        ("timeout", "-3"),
        ("timeout", "nan"),
        ("timeout", "soon"),
        ("commit_after", "-0.5"),
        ("commit_after", "nan"),
        ("backend", "  "),
    ],
)
def test_a_bad_variable_is_named_with_what_was_expected(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would fail later, elsewhere, or only in production."""
    monkeypatch.setenv(variable(name), text)

    with pytest.raises(ConfigurationError) as caught:
        load()

    assert str(caught.value).startswith(f"environment variable {variable(name)} = ")
    assert ": expected " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 0),
        ("concurrency", "8"),
        ("concurrency", True),
        ("concurrency", 2.0),
        ("timeout", True),
        ("timeout", "5"),
        ("timeout", math.nan),
        ("retries", False),
        ("backend", 3),
        ("storage", ""),
    ],
)
def test_a_bad_argument_is_refused(name: str, value: object) -> None:
    """Also by `Settings` itself, so that no instance holds one."""
    arguments: dict[str, Any] = {name: value}

    with pytest.raises(ConfigurationError, match=f"^{name} = .*: expected "):
        load(**arguments)
    with pytest.raises(ConfigurationError, match=f"^{name} = .*: expected "):
        Settings(**arguments)


def test_a_setting_with_a_default_is_never_none() -> None:
    """Their types promise a value."""
    arguments: dict[str, Any] = {"retries": None}

    with pytest.raises(ConfigurationError, match="retries = None"):
        Settings(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [("retries", 0), ("commit_after", 0), ("commit_after", math.inf), ("timeout", 0.1)],
)
def test_the_least_value_is_taken(name: str, value: float) -> None:
    """Zero retries, and committing always or never, are things a user wants."""
    arguments: dict[str, Any] = {name: value}

    assert getattr(load(**arguments), name) == value


def test_an_infinite_timeout_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a caller can lift a limit that the environment sets."""
    monkeypatch.setenv("WREN_TIMEOUT", "60")

    assert load(timeout=math.inf).timeout is None


@pytest.mark.parametrize("key", ["WREN_TIMOUT", "WREN_timeout", "WREN_TIMEOUT_"])
def test_an_unknown_variable_is_named_with_what_is_near(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that is misspelt must not silently do nothing."""
    monkeypatch.setenv(key, "5")

    with pytest.raises(ConfigurationError) as caught:
        load()

    message = str(caught.value)
    assert f"unknown environment variable {key} (did you mean WREN_TIMEOUT?)" in message
    assert "known: WREN_AWS_ROLE, WREN_AZURE_APP, WREN_BACKEND, " in message


@pytest.mark.parametrize("name", ["wren.toml", "pyproject.toml"])
def test_an_unknown_key_is_named_with_its_file(name: str, home: Path) -> None:
    """The same, for files."""
    table = "[tool.wren]\n" if name == "pyproject.toml" else ""
    (home / name).write_text(f"{table}chunk-size = 5")

    with pytest.raises(ConfigurationError) as caught:
        load()

    assert str(home / name) in str(caught.value)
    assert "chunk-size (did you mean chunksize?); known: " in str(caught.value)


def test_an_unknown_argument_is_refused() -> None:
    """Adapters and tools call `load` by keyword."""
    with pytest.raises(ConfigurationError, match=r"unknown setting backends \(did you"):
        load(backends="aws")


def test_a_bad_value_in_a_file_is_named_with_its_file(home: Path) -> None:
    """TOML has numbers; text for one is a mistake."""
    (home / "wren.toml").write_text('retries = "2"')

    with pytest.raises(ConfigurationError) as caught:
        load()

    where = home / "wren.toml"
    assert str(caught.value) == (
        f"{where}: retries = '2': expected a whole number, 0 or more"
    )


def test_a_file_is_found_from_below(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs are started from anywhere inside a project."""
    (home / "wren.toml").write_text("retries = 9")
    (home / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(home / "a" / "b")

    assert load().retries == 9


def test_only_the_nearest_file_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two projects, one inside the other, do not mix."""
    (home / "wren.toml").write_text("retries = 9\nmemory = 9")
    (home / "a").mkdir()
    (home / "a" / "pyproject.toml").write_text("[tool.wren]\nretries = 5")
    monkeypatch.chdir(home / "a")

    settings = load()

    assert (settings.retries, settings.memory) == (5, None)


def test_an_empty_file_ends_the_search(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project can so shut out what is above it."""
    (home / "wren.toml").write_text("retries = 9")
    (home / "a").mkdir()
    (home / "a" / "wren.toml").touch()
    monkeypatch.chdir(home / "a")

    assert load() == Settings()


@pytest.mark.parametrize(
    "text", ["", '[project]\nname = "wren-user"', '[tool.x]\nuses = "wren"']
)
def test_a_project_without_a_table_is_passed_over(
    text: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most pyproject.toml files say nothing of wren, though some mention it."""
    (home / "wren.toml").write_text("retries = 9")
    (home / "a").mkdir()
    (home / "a" / "pyproject.toml").write_text(text)
    monkeypatch.chdir(home / "a")

    assert load().retries == 9


def test_nothing_above_home_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there belongs to the machine, not to this user."""
    (home / "wren.toml").write_text("retries = 9")
    (home / "user" / "a").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home / "user"))
    monkeypatch.chdir(home / "user" / "a")

    assert load() == Settings()


def test_a_strangers_file_in_a_shared_directory_is_not_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever works below /tmp must not run what another user has put there."""
    shared = home / "shared"
    (shared / "mine").mkdir(parents=True)
    (shared / "wren.toml").write_text("retries = 9")
    monkeypatch.chdir(shared / "mine")
    stranger = os.stat_result((0o100644, 1, 1, 1, 54321, 54321, 1, 0, 0, 0))
    own_stat = Path.stat

    def seen(path: Path, **options: Any) -> os.stat_result:
        about = own_stat(path, **options)
        return stranger if stat.S_ISREG(about.st_mode) else about

    monkeypatch.setattr(Path, "stat", seen)
    shared.chmod(0o755)
    trusted = load()
    shared.chmod(0o1777)
    distrusted = load()

    assert trusted.retries == 9
    assert distrusted == Settings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("wren.toml", "retries = ", "wren.toml is not TOML: "),
        ("wren.toml", b"retries = '\xff'", "wren.toml is not TOML: "),
        ("pyproject.toml", "[wren", "pyproject.toml is not TOML: "),
        ("pyproject.toml", "[tool]\nwren = 1", "pyproject.toml: wren must be a table"),
        ("pyproject.toml", "tool = 'wren'", "pyproject.toml: tool must be a table"),
    ],
)
def test_a_broken_file_is_named(
    name: str, text: str | bytes, message: str, home: Path
) -> None:
    """It must not count as absent."""
    (home / name).write_bytes(text.encode() if isinstance(text, str) else text)

    with pytest.raises(ConfigurationError) as caught:
        load()

    assert str(caught.value).startswith(str(home))
    assert message in str(caught.value)


def test_an_unreadable_file_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that exists and cannot be read would change what happens."""
    (home / "wren.toml").touch()

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)

    with pytest.raises(ConfigurationError, match=r"toml cannot be read: Permission"):
        load()


def test_a_directory_that_is_gone_has_no_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long-lived programs outlive the directory they were started in."""
    (home / "gone").mkdir()
    monkeypatch.chdir(home / "gone")
    (home / "gone").rmdir()

    assert load() == Settings()


def test_a_user_without_home_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as users that have no account."""

    def nobody() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nobody)

    assert load() == Settings()


def test_a_path_in_a_file_is_relative_to_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the same file wherever the program is started from."""
    (home / "wren.toml").write_text('requirements = "needs.txt"')
    (home / "a").mkdir()
    monkeypatch.chdir(home / "a")

    assert load().requirements == str(home / "needs.txt")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://canary:canary@bucket/p", "s3://***@bucket/p"),
        ("az://account/container?sig=canary&x=@", "az://account/container?***"),
        ("x://u:p@canary@host", "x://***@host"),
        ("Name=n;AccountKey=canary==;Suffix=s", "Name=n;AccountKey=***;Suffix=s"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    """Settings end up in logs and in reports of bugs."""
    rows = {row.name: row.value for row in explain(storage=url)}

    assert rows["storage"] == shown
    assert "canary" not in repr(load(storage=url))
    assert f"storage={shown!r}" in repr(load(storage=url))


def test_settings_say_what_they_are() -> None:
    """``wren config`` shows this to people who look for a setting."""
    assert all(row.help for row in explain())
    assert [row.source for row in explain(retries=1) if row.name == "retries"] == [
        "argument"
    ]


def test_workers_get_the_environment_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task is often less trusted than its driver, and prints its environment."""
    for name in (*SECRET, *HARMLESS):
        monkeypatch.setenv(name, "x")

    given = worker_environment()

    assert given.keys().isdisjoint(SECRET)
    assert given.keys() >= {*HARMLESS, "HOME", "PATH"}


def test_reading_settings_loads_no_toml_parser_in_vain() -> None:
    """Every program that makes an executor pays for what this imports."""
    code = (
        "import sys; old = {*sys.modules}; from wren.config import load; load();"
        "print(*{'tomllib', 'difflib', 'importlib.metadata'} & {*sys.modules} - old)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "\n"
