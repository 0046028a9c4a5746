"""Which of Azure's variables count, in which order, and what is said of bad ones."""

from __future__ import annotations

import sys

import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from wren.config import Settings
from wren.errors import ConfigurationError
from wren.registry import open_storage
from wren.storage.azure_login import ENTRA, Login, find_login

KEY = "c2VjcmV0"
SAS = "sv=2026-02-06&sp=rl&sig=CANARY"
CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be logged in."""
    for name in ("CONNECTION_STRING", "KEY", "SAS_TOKEN", "ACCOUNT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    monkeypatch.delenv(ENDPOINT, raising=False)


def test_nothing_set_means_entra_id() -> None:
    """As for Azure's own tools; the address is that of the public cloud."""
    assert find_login("acc") == Login(
        account="acc", endpoint="https://acc.blob.core.windows.net", source=ENTRA
    )


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={}", None),
        ("AccountName=acc;AccountKey={};EndpointSuffix=core.windows.net;", None),
        ("accountname=acc;ACCOUNTKEY={} ; ;", None),
        (
            "AccountName=acc;AccountKey={};EndpointSuffix=core.chinacloudapi.cn",
            "https://acc.blob.core.chinacloudapi.cn",
        ),
        (
            "AccountName=acc;AccountKey={};BlobEndpoint=http://127.0.0.1:1/acc/",
            "http://127.0.0.1:1/acc",
        ),
        (
            "BlobEndpoint=https://acc.blob.core.windows.net/;AccountKey={}",
            "https://acc.blob.core.windows.net",
        ),
    ],
)
def test_a_connection_string_gives_address_and_key(
    monkeypatch: pytest.MonkeyPatch, text: str, endpoint: str | None
) -> None:
    """In all the forms in which Azure's portal and its tools write it."""
    monkeypatch.setenv(CONNECTION_STRING, text.format(KEY))
    monkeypatch.setenv("AZURE_STORAGE_KEY", "b3RoZXI=")

    login = find_login("acc")

    assert login.endpoint == (endpoint or "https://acc.blob.core.windows.net")
    assert (login.key, login.sas, login.source) == (KEY, "", CONNECTION_STRING)
    assert isinstance(login.credential(), AzureNamedKeyCredential)


def test_a_connection_string_may_hold_a_sas(monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without the question mark of a URL."""
    for sas in (SAS, f"?{SAS}"):
        text = f"BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature={sas}"
        monkeypatch.setenv(CONNECTION_STRING, text)

        login = find_login("acc")

        assert (login.key, login.sas) == ("", SAS)
        assert isinstance(login.credential(), AzureSasCredential)


def test_a_connection_string_may_hold_the_address_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the login comes from the next that has one."""
    text = "AccountName=acc;BlobEndpoint=https://acc.example.org"
    monkeypatch.setenv(CONNECTION_STRING, text)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)

    login = find_login("acc")

    assert (login.endpoint, login.sas) == ("https://acc.example.org", SAS)


def test_the_emulator_has_a_short_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that Microsoft's own documentation tells to use."""
    monkeypatch.setenv(CONNECTION_STRING, "UseDevelopmentStorage=true")

    login = find_login("devstoreaccount1")

    assert login.endpoint == "http://127.0.0.1:10000/devstoreaccount1"
    assert isinstance(login.credential(), AzureNamedKeyCredential)


def test_a_key_comes_before_a_sas(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can sign grants."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", SAS)
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    monkeypatch.setenv(ENDPOINT, "https://127.0.0.1:1/acc")

    login = find_login("acc")

    assert (login.key, login.source) == (KEY, "AZURE_STORAGE_KEY")
    assert login.endpoint == "https://127.0.0.1:1/acc"


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login may end in a log."""
    for name, value in (("KEY", KEY), ("SAS_TOKEN", SAS)):
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
        assert value not in repr(find_login("acc"))
        monkeypatch.delenv(f"AZURE_STORAGE_{name}")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {CONNECTION_STRING: f"AccountName=other;AccountKey={KEY}"},
            "'acc', and AZURE_STORAGE_CONNECTION_STRING the account 'other'",
        ),
        (
            {
                CONNECTION_STRING: "BlobEndpoint=https://other.blob.core.windows.net;"
                f"SharedAccessSignature={SAS}"
            },
            "the account 'other'",
        ),
        (
            {"AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ACCOUNT": "other"},
            "'acc', and AZURE_STORAGE_ACCOUNT the account 'other'",
        ),
        ({CONNECTION_STRING: f"AccountName=acc;{KEY}"}, "without ="),
        ({CONNECTION_STRING: "AccountName=acc;AccountKey=CANARY!"}, "base64"),
        ({"AZURE_STORAGE_KEY": "CANARY!"}, "AZURE_STORAGE_KEY.*base64"),
        ({"AZURE_STORAGE_SAS_TOKEN": "CANARY"}, "AZURE_STORAGE_SAS_TOKEN.*sig="),
        ({ENDPOINT: "http://127.0.0.1:1/acc"}, "Entra ID needs .* https:"),
    ],
)
def test_a_bad_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """When the store is opened, before anything is sent; without its value."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=said) as caught:
        find_login("acc")

    assert "CANARY" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_login_to_entra_id_may_need_a_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says which, and what else would do."""
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)

    with pytest.raises(ConfigurationError, match="pip install azure-identity"):
        find_login("acc").credential()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("az://", "expected az://account/container/prefix"),
        ("az://acc", "container's name"),
        ("az://acc/", "container's name"),
        ("az://acc/Box", "container's name"),
        ("az://acc/my_box/p", "container's name"),
        ("az://acc/bo", "container's name"),
        ("az://acc/a--b", "container's name"),
        ("az://acc/-box", "container's name"),
        (f"az://acc/{'b' * 64}", "container's name"),
        ("az://Acc/box", "account's name"),
        ("az://acc.blob.core.windows.net/box", "account's name"),
        ("az://me:CANARY@acc/box", "expected az://account/container/prefix"),
        ("az://acc/box?sig=CANARY", "expected az://account/container/prefix"),
        ("az://acc/box/a//b", "segment"),
    ],
)
def test_a_bad_url_is_refused(url: str, said: str) -> None:
    """When the store is opened, with the rule that it breaks."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        open_storage(url, Settings())

    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("url", ["az://acc/box", "az://acc/b-0-x/p/q", "AZ://acc/box/"])
def test_a_good_url_is_opened(url: str) -> None:
    """Without asking anybody."""
    assert open_storage(url, Settings()).name == "azure"
