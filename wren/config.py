"""Settings, each from the first place that has it; the only reader of the environment.

    argument > environment > wren.toml > [tool.wren] in pyproject.toml > default

The environment variable of a setting is its name in capitals after ``WREN_``. One that
is empty counts as not set. Every other one whose name begins with ``WREN_``, and every
key in a file, must be known. Which files are read: `wren.configfile`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, TypeAlias

from wren import configfile
from wren.errors import ConfigurationError
from wren.suggest import unknown

PREFIX: Final = "WREN_"

_Layer: TypeAlias = dict[str, tuple[Any, str]]  # setting -> (value, where it is from)


class _Kind(NamedTuple):
    """What values a setting takes."""

    expected: str
    parse: Callable[[str], object]
    """From text; may raise ValueError."""
    accepts: Callable[[object], bool]


class _Setting(NamedTuple):
    """What a field of `Settings` knows besides its name and its default."""

    help: str
    kind: _Kind
    shown: Callable[[Any], object] | None
    """Removes what is secret, where something can be."""
    is_path: bool


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _at_least(least: float, *types: type[int | float]) -> Callable[[object], bool]:
    def accepts(value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and isinstance(value, types) and value >= least

    return accepts


def _count(least: int) -> _Kind:
    return _Kind(f"a whole number, {least} or more", int, _at_least(least, int))


_TEXT: Final = _Kind("text that is not empty", str, _is_text)
_LIMIT: Final = _Kind(
    "seconds, more than 0, or inf for no limit",
    float,
    _at_least(math.ulp(0.0), int, float),
)
_DELAY: Final = _Kind(
    "seconds, 0 or more, or inf for never", float, _at_least(0, int, float)
)


def environment(name: str) -> str | None:
    """Return a variable that a cloud's own tools define; None if empty or not set.

    wren's own settings are in `Settings`.
    """
    return os.environ.get(name) or None


def environment_with(
    changes: Mapping[str, str], without: Iterable[str] = ()
) -> dict[str, str]:
    """Return this process's environment, changed, for a command that the user gives.

    Args:
        changes: Variables to set.
        without: Variables to leave out.
    """
    left_out = frozenset(without)
    kept = {name: text for name, text in os.environ.items() if name not in left_out}
    return kept | dict(changes)


def mask_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query, keys."""
    url = re.sub(r"\?.*", "?***", re.sub(r"(?<=//)[^/]*@", "***@", url))
    return re.sub(r"(?i)((?:key|secret|password|signature)=)[^;]*", r"\1***", url)


def _setting(
    default: object,
    kind: _Kind,
    text: str,
    *,
    shown: Callable[[Any], object] | None = None,
    is_path: bool = False,
) -> Any:
    about = _Setting(text, kind, shown, is_path)
    return field(default=default, metadata={"setting": about})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Every setting. An instance is valid: a bad value is refused when it is made.

    Raises:
        ConfigurationError: A value is not what its setting takes.
    """

    backend: str = _setting("local", _TEXT, "where functions run")
    storage: str | None = _setting(
        None, _TEXT, "URL of the store; by default the backend's own", shown=mask_url
    )
    concurrency: int | None = _setting(
        None, _count(1), "most invocations in flight; by default the backend's limit"
    )
    timeout: float | None = _setting(None, _LIMIT, "seconds that a task may take")
    retries: int = _setting(2, _count(0), "new attempts after faults of infrastructure")
    chunksize: int | None = _setting(
        None, _count(1), "tasks in one invocation; by default adaptive"
    )
    buffer: int | None = _setting(
        None, _count(1), "tasks of a stream that may be in flight or unread"
    )
    commit_after: float = _setting(
        10.0, _DELAY, "seconds of work that are stored before they are sent"
    )
    memory: int | None = _setting(None, _count(1), "memory of the function, in MB")
    requirements: str | None = _setting(
        None, _TEXT, "requirements file to install into the function", is_path=True
    )
    function: str | None = _setting(None, _TEXT, "name of the deployed function")
    region: str | None = _setting(
        None, _TEXT, "region; by default what the cloud's own tools use"
    )
    aws_role: str | None = _setting(None, _TEXT, "ARN of the role the function runs as")
    gcp_project: str | None = _setting(None, _TEXT, "Google Cloud project")
    gcp_service_account: str | None = _setting(
        None, _TEXT, "service account the function runs as"
    )
    azure_app: str | None = _setting(None, _TEXT, "name of the Azure function app")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                _check(each.name, value, each.name)
        if self.timeout == math.inf:
            object.__setattr__(self, "timeout", None)

    def __repr__(self) -> str:
        shown = (f"{row.name}={row.value!r}" for row in _rows(self, {}))
        return f"Settings({', '.join(shown)})"


_SETTINGS: Final[Mapping[str, _Setting]] = {
    each.name: each.metadata["setting"] for each in fields(Settings)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What the deployed function needs. None leaves a field to the configuration."""

    memory: int | None = None
    """Memory in MB."""

    requirements: str | os.PathLike[str] | None = None
    """A requirements file to install into the function."""

    function: str | None = None
    """Name of the deployed function."""


class Row(NamedTuple):
    """One setting, for people."""

    name: str
    value: Any
    """Its value, with ``***`` for what is secret in it."""
    source: str
    """``default``, ``argument``, or the variable or file it comes from."""
    help: str


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def load(*, runtime: Runtime | None = None, **arguments: object) -> Settings:
    """Return the settings in force.

    Args:
        runtime: Its fields that are not None count as arguments.
        **arguments: Values by the name of the setting; None means not given.

    Raises:
        ConfigurationError: A name is unknown, a value is not what its setting takes, or
            a file cannot be read. The message says where, and what was expected.
    """
    return _settings(_resolve(runtime, arguments))


def explain(*, runtime: Runtime | None = None, **arguments: object) -> list[Row]:
    """Return what `load` would, setting by setting, with the source of each.

    Raises:
        ConfigurationError: As `load`.
    """
    layer = _resolve(runtime, arguments)
    sources = {name: source for name, (_, source) in layer.items()}
    return _rows(_settings(layer), sources)


def _settings(layer: _Layer) -> Settings:
    return Settings(**{name: value for name, (value, _) in layer.items()})


def _rows(settings: Settings, sources: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    for name, setting in _SETTINGS.items():
        value = getattr(settings, name)
        if setting.shown is not None and value is not None:
            value = setting.shown(value)
        rows.append(Row(name, value, sources.get(name, "default"), setting.help))
    return rows


def _check(name: str, value: object, where: str) -> None:
    kind = _SETTINGS[name].kind
    if not kind.accepts(value):
        raise ConfigurationError(f"{where} = {value!r}: expected {kind.expected}")


def _resolve(runtime: Runtime | None, arguments: Mapping[str, object]) -> _Layer:
    given = {name: value for name, value in arguments.items() if value is not None}
    if runtime is not None:
        needs = runtime.requirements
        wanted = {
            "memory": runtime.memory,
            "requirements": None if needs is None else os.fspath(needs),
            "function": runtime.function,
        }
        given |= {name: value for name, value in wanted.items() if value is not None}
    return _from_files() | _from_environment() | _from_arguments(given)


def _from_arguments(given: Mapping[str, object]) -> _Layer:
    for name, value in given.items():
        if name not in _SETTINGS:
            raise ConfigurationError(unknown("setting", name, _SETTINGS))
        _check(name, value, name)
    return {name: (value, "argument") for name, value in given.items()}


def _from_environment() -> _Layer:
    layer: _Layer = {}
    names = {variable(name): name for name in _SETTINGS}
    for key, text in os.environ.items():
        if not key.startswith(PREFIX) or not text:
            continue
        if key not in names:
            raise ConfigurationError(unknown("environment variable", key, names))
        kind = _SETTINGS[names[key]].kind
        try:
            value = kind.parse(text)
        except ValueError:
            value = text  # which the check refuses
        _check(names[key], value, f"environment variable {key}")
        layer[names[key]] = (value, key)
    return layer


def _from_files() -> _Layer:
    layer: _Layer = {}
    for path, table in configfile.tables():
        for name, value in table.items():
            if name not in _SETTINGS:
                raise ConfigurationError(
                    unknown(f"setting in {path}:", name, _SETTINGS)
                )
            _check(name, value, f"{path}: {name}")
            taken = str(path.parent / value) if _SETTINGS[name].is_path else value
            layer[name] = (taken, str(path))
    return layer


_PRIVATE: Final = re.compile(
    r"""^(WREN|AWS|AZURE|ARM|GOOGLE|GCLOUD|GCP|CLOUDSDK)_
      | PASSWORD | PASSWD | PASSPHRASE | SECRET | CREDENTIAL | TOKEN | APIKEY
      | _PWD$ | (^|_)KEYS?$ | (^|_)SAS$ | (^|_)DSN$ | CONNECTION_STRING$""",
    re.VERBOSE | re.IGNORECASE,
)


def worker_environment() -> dict[str, str]:
    """Return the environment for worker processes on this machine.

    It is this process's own without ``WREN_*``, so that a task sees no settings of its
    driver, and without what is probably secret. That is judged by the variable's name:
    what belongs to a cloud (``AWS_``, ``AZURE_``, ``ARM_``, ``GOOGLE_``, ``GCLOUD_``,
    ``GCP_``, ``CLOUDSDK_``), what contains ``PASSWORD``, ``PASSWD``, ``PASSPHRASE``,
    ``SECRET``, ``CREDENTIAL``, ``TOKEN`` or ``APIKEY``, and what ends in ``_KEY``,
    ``_KEYS``, ``_PWD``, ``_SAS``, ``_DSN`` or ``CONNECTION_STRING``.
    """
    return {k: v for k, v in os.environ.items() if not _PRIVATE.search(k)}
