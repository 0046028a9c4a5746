"""The GCS server does what the real one does, where a store depends upon it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
import requests
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.oauth2 import service_account

from wren.conformance.emulators import gcs
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.emulators.gcs_identity import (
    EVERYTHING,
    READ,
    GrantError,
    Identity,
)
from wren.conformance.emulators.gcs_messages import RefusalError

SCOPES: Final = ["https://www.googleapis.com/auth/cloud-platform"]


class Server:
    """The server, as an account sees it, below a prefix that no other test has."""

    def __init__(self, emulator: Emulator, key: str = "") -> None:
        self.url = emulator.environment["STORAGE_EMULATOR_HOST"]
        self.key = Path(emulator.environment["GOOGLE_APPLICATION_CREDENTIALS"])
        path = self.key.parent / key if key else self.key
        self.credentials = service_account.Credentials.from_service_account_file(
            str(path), scopes=SCOPES
        )
        self.session = AuthorizedSession(self.credentials)
        self.prefix = f"{uuid.uuid4().hex}/"

    def close(self) -> None:
        self.session.close()

    def name(self, key: str) -> str:
        return self.prefix + key

    def of(self, key: str, **query: object) -> str:
        """Return the address of an object's description, or content (alt=media)."""
        name = quote(self.name(key), safe="")
        return f"{self.url}/storage/v1/b/wren/o/{name}?{urlencode(query)}"

    def put(self, key: str, data: bytes = b"v", **query: object) -> requests.Response:
        arguments = urlencode({"uploadType": "media", "name": self.name(key), **query})
        url = f"{self.url}/upload/storage/v1/b/wren/o?{arguments}"
        return self.session.post(url, data=data)

    def get(self, key: str, span: str = "", **query: object) -> requests.Response:
        headers = {"Range": f"bytes={span}"} if span else {}
        return self.session.get(self.of(key, alt="media", **query), headers=headers)

    def listing(self, **query: object) -> dict[str, Any]:
        arguments = urlencode({"prefix": self.prefix, **query})
        answer = self.session.get(f"{self.url}/storage/v1/b/wren/o?{arguments}")
        found: dict[str, Any] = answer.json()
        return found

    def signed(
        self, key: str, method: str, headers: dict[str, str], seconds: int = 60
    ) -> str:
        client = storage.Client("p", self.credentials, _http=self.session)
        blob = client.bucket("wren").blob(self.name(key))
        url = blob.generate_signed_url(
            timedelta(seconds=seconds), method=method, headers=headers, version="v4"
        )
        return url.replace("https://storage.googleapis.com", self.url)


@pytest.fixture
def server(gcs_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    """As its administrator sees it."""
    monkeypatch.setenv(
        "STORAGE_EMULATOR_HOST", gcs_server.environment["STORAGE_EMULATOR_HOST"]
    )
    opened = Server(gcs_server)
    yield opened
    opened.close()


@pytest.fixture
def reader(gcs_server: Emulator, server: Server) -> Generator[Server]:
    """As somebody sees it who may only read; the same objects."""
    opened = Server(gcs_server, gcs.READER)
    opened.prefix = server.prefix
    yield opened
    opened.close()


def test_one_of_many_creators_wins(server: Server) -> None:
    """The condition is decided under one lock with the write."""
    with ThreadPoolExecutor(16) as pool:
        answers = [
            pool.submit(server.put, "k", b"%d" % number, ifGenerationMatch=0)
            for number in range(32)
        ]
        statuses = [answer.result().status_code for answer in answers]

    assert sorted(statuses) == [200] + 31 * [412]
    assert server.get("k").content == b"%d" % statuses.index(200)


def test_conditions_are_about_the_generation(server: Server) -> None:
    """Of writing, reading and deleting; 304 is for who has the object already."""
    assert server.put("k", ifGenerationMatch=5).status_code == 412
    first = server.put("k", b"1").json()["generation"]
    second = server.put("k", b"2", ifGenerationMatch=first).json()["generation"]

    assert first != second
    assert server.put("k", b"3", ifGenerationMatch=first).status_code == 412
    assert server.get("k", ifGenerationMatch=first).status_code == 412
    assert server.get("k", ifGenerationMatch=second).content == b"2"
    assert server.get("k", ifGenerationNotMatch=second).status_code == 304
    stale = server.session.delete(server.of("k", ifGenerationMatch=first))
    assert stale.status_code == 412
    exact = server.session.delete(server.of("k", ifGenerationMatch=second))
    assert exact.status_code == 204
    assert server.get("k").status_code == 404


def test_conditions_hold_inside_a_batch(server: Server) -> None:
    """Each call of a batch has an answer of its own."""
    generation = int(server.put("a").json()["generation"])
    server.put("b")
    calls = [
        server.of("a", ifGenerationMatch=generation + 1),
        server.of("b"),
        server.of("c"),
    ]

    answer = _batch(server, [f"DELETE {call} HTTP/1.1" for call in calls])

    statuses = [line for line in answer.text.splitlines() if "HTTP/1.1" in line]
    assert [int(line.split()[1]) for line in statuses] == [412, 204, 404]
    assert server.get("a").status_code == 200
    assert server.get("b").status_code == 404


def test_batch_has_a_limit(server: Server) -> None:
    """The real one takes 100."""
    calls = [f"DELETE {server.of(str(number))} HTTP/1.1" for number in range(101)]

    assert _batch(server, calls).status_code == 400


@pytest.mark.parametrize(
    ("span", "status", "content", "described"),
    [
        ("2-4", 206, b"234", "bytes 2-4/10"),
        ("7-", 206, b"789", "bytes 7-9/10"),
        ("8-99", 206, b"89", "bytes 8-9/10"),
        ("-3", 206, b"789", "bytes 7-9/10"),
        ("-99", 206, b"0123456789", "bytes 0-9/10"),
        ("10-", 416, None, "bytes */10"),
        ("", 200, b"0123456789", None),
    ],
)
def test_ranges(
    span: str, status: int, content: bytes | None, described: str, server: Server
) -> None:
    """Cut at the end; refused beyond it."""
    server.put("k", b"0123456789")

    answer = server.get("k", span)

    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == described
    assert content is None or answer.content == content
    assert content is None or "crc32c=" in answer.headers["X-Goog-Hash"]


def test_listing_comes_in_pages(server: Server) -> None:
    """In byte order, from an offset, up to one, each name once."""
    names = ["a", "b/c", "b/d", "é", "\uffee", "\U0001f426"]
    for name in names:
        server.put(name)

    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = server.listing(maxResults=2, **token)
        found += [each["name"] for each in page["items"]]
        if "nextPageToken" not in page:
            break
        token = {"pageToken": page["nextPageToken"]}
    part = server.listing(
        startOffset=server.name("b/c"), endOffset=server.name("\uffee")
    )
    folders = server.listing(delimiter="/")

    assert found == [server.name(name) for name in names]
    assert [each["name"] for each in part["items"]] == found[1:4]
    assert folders["prefixes"] == [server.name("b/")]


def test_names_are_not_normalised(server: Server) -> None:
    """The emulator takes a backslash for a slash, and drops what looks like a path."""
    names = ["a\\b", "a/b", "a/./b", "a//b", "a/b/acl", "A/b", "x;y?z#w%2F"]

    for name in names:
        assert server.put(name, name.encode()).status_code == 200

    for name in names:
        assert server.get(name).content == name.encode()


def test_bytes_are_not_touched(server: Server) -> None:
    """The emulator reads an upload in several parts as a mail."""
    data = bytes(range(256)) + b"\r\n--x--\r\n\n\r\r\n" + b"--" + bytes(3)
    body = b'--x\r\n\r\n{"name": "%s"}\r\n--x\r\n\r\n%s\r\n--x--' % (
        server.name("k").encode(),
        data.replace(b"--x", b"--y"),
    )
    url = f"{server.url}/upload/storage/v1/b/wren/o?uploadType=multipart"

    headers = {"Content-Type": "multipart/related; boundary=x"}
    assert server.session.post(url, data=body, headers=headers).status_code == 200

    assert server.get("k").content == data.replace(b"--x", b"--y")


def test_altered_upload_is_refused(server: Server) -> None:
    """By the checksum that came with it."""
    url = server.signed("k", "PUT", {"x-goog-hash": "crc32c=AAAAAA=="})

    refused = requests.put(
        url, b"v", headers={"x-goog-hash": "crc32c=AAAAAA=="}, timeout=10
    )

    assert refused.status_code == 400
    assert server.get("k").status_code == 404


def test_upload_session(server: Server) -> None:
    """Goes on where it was, needs no token, and tells afterwards that it has ended."""
    session = _begin(server, "k", ifGenerationMatch=0)

    assert _send(session, b"", "bytes */6").headers.get("Range") is None
    first = _send(session, b"012", "bytes 0-2/6")
    assert first.status_code == 308
    assert first.headers["Range"] == "bytes=0-2"
    assert _send(session, b"5", "bytes 5-5/6").status_code == 400
    assert server.get("k").status_code == 404
    assert _send(session, b"345", "bytes 3-5/6").status_code == 200
    assert _send(session, b"", "bytes */6").json()["size"] == "6"
    assert server.get("k").content == b"012345"


def test_upload_session_keeps_its_condition(server: Server) -> None:
    """Somebody else may have written meanwhile."""
    session = _begin(server, "k", ifGenerationMatch=0)
    server.put("k", b"theirs")

    assert _send(session, b"mine", "bytes 0-3/4").status_code == 412
    assert server.get("k").content == b"theirs"


def test_upload_session_can_be_ended(server: Server) -> None:
    """Then there is no object, and no session."""
    session = _begin(server, "k")
    _send(session, b"012", "bytes 0-2/6")

    assert requests.delete(session, timeout=10).status_code == 499
    assert _send(session, b"345", "bytes 3-5/6").status_code == 404
    assert server.get("k").status_code == 404


def test_compose_has_a_limit(server: Server) -> None:
    """32 sources, each of which must exist."""
    server.put("a", b"1")
    server.put("b", b"2")

    def compose(*keys: str) -> requests.Response:
        sources = [{"name": server.name(key)} for key in keys]
        url = server.of("k").replace("?", "/compose?")
        return server.session.post(
            url, json={"sourceObjects": sources, "destination": {}}
        )

    assert compose("a", "b").json()["componentCount"] == 2
    assert server.get("k").content == b"12"
    assert compose("a", "absent").status_code == 404
    assert compose(*(33 * ["a"])).status_code == 400


SIGNED: Final = {"x-goog-if-generation-match": "0"}


@pytest.mark.parametrize(
    ("old", "new", "headers", "status"),
    [
        ("", "", SIGNED, 200),
        ("", "", {}, 400),
        ("", "", {"x-goog-if-generation-match": "1"}, 403),
        ("", "", {**SIGNED, "x-goog-meta-a": "b"}, 400),
        ("/mine?", "/other?", SIGNED, 403),
        ("Expires=60", "Expires=61", SIGNED, 403),
        ("Signature=", "Signature=00", SIGNED, 403),
        ("/mine?", "/mine?x=y&", SIGNED, 403),
        ("X-Goog-Signature", "X", SIGNED, 401),
    ],
)
def test_signature_covers_the_request(
    old: str, new: str, headers: dict[str, str], status: int, server: Server
) -> None:
    """Object, time, query and condition; an unsigned header of Google's is refused."""
    url = server.signed("mine", "PUT", SIGNED)

    answer = requests.put(url.replace(old, new), b"v", headers=headers, timeout=10)

    assert answer.status_code == status
    assert server.get("mine").status_code == (200 if status == 200 else 404)
    assert server.get("other").status_code == 404


def test_signature_is_for_one_method_and_a_time(server: Server) -> None:
    """What has expired is refused in the real service's words."""
    server.put("k", b"v")
    url = server.signed("k", "GET", {})

    assert requests.get(url, timeout=10).content == b"v"
    assert requests.put(url, b"new", timeout=10).status_code == 403
    assert requests.delete(url, timeout=10).status_code == 403
    expired = requests.get(server.signed("k", "GET", {}, -5), timeout=10)
    assert expired.status_code == 400
    assert b"<Code>ExpiredToken</Code>" in expired.content


def test_who_signs_can_give_only_what_is_his(server: Server, reader: Server) -> None:
    """A reader's URL does not write."""
    server.put("k", b"v")

    assert requests.get(reader.signed("k", "GET", {}), timeout=10).content == b"v"
    refused = requests.put(reader.signed("k", "PUT", {}), b"new", timeout=10)

    assert refused.status_code == 403
    assert b"storage.objects.create" in refused.content


def test_reader_may_only_read(server: Server, reader: Server) -> None:
    """The error names account and permission."""
    server.put("k", b"v")

    assert reader.get("k").content == b"v"
    assert [each["name"] for each in reader.listing()["items"]] == [server.name("k")]
    for refused in (
        reader.put("k"),
        reader.session.delete(reader.of("k")),
        reader.session.get(f"{server.url}/storage/v1/b/wren"),
    ):
        assert refused.status_code == 403
        assert "reader@" in refused.json()["error"]["message"]


def test_nobody_in_particular_may_do_nothing(server: Server) -> None:
    """Where a login is asked for; a wrong token is refused anywhere."""
    server.put("k", b"v")

    assert requests.get(server.of("k"), timeout=10).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert requests.get(server.of("k"), headers=wrong, timeout=10).status_code == 401
    with gcs.serve() as open_to_all:
        other = Server(open_to_all)
        assert requests.get(other.of("k"), timeout=10).status_code == 404
        refused = requests.get(other.of("k"), headers=wrong, timeout=10)
        assert refused.status_code == 401
        other.close()


def test_missing_bucket_is_told_from_a_missing_object(server: Server) -> None:
    """In the words of the real service, in both of its shapes."""
    absent = server.session.get(server.of("k")).json()["error"]["message"]
    nowhere = server.session.get(f"{server.url}/storage/v1/b/nobody/o/k")
    xml = server.session.get(f"{server.url}/nobody/k")

    assert absent == f"No such object: wren/{server.name('k')}"
    assert "bucket does not exist" in nowhere.json()["error"]["message"]
    assert b"<Code>NoSuchBucket</Code>" in xml.content
    assert b"NoSuchKey" in server.session.get(f"{server.url}/wren/nothing").content


def test_tokens_expire() -> None:
    """Also those that were made from others."""
    now = Identity(token_seconds=60)
    past = Identity(token_seconds=-1)

    for identity in (now, past):
        account = identity.add("somebody", READ)
        token = identity.issue(_statement(account.credentials("u")), "u/token")
        header = f"Bearer {token['access_token']}"
        if identity is now:
            assert identity.bearer(header).permissions == READ
        else:
            with pytest.raises(RefusalError, match="Invalid Credentials"):
                identity.bearer(header)


def test_token_needs_the_accounts_signature() -> None:
    """Not that of another account, nor one for another server."""
    identity = Identity(token_seconds=60)
    mine = identity.add("mine", EVERYTHING).credentials("u")
    other = identity.add("other", EVERYTHING).credentials("u")

    identity.issue(_statement(mine), "u/token")
    forged = mine | {"private_key": other["private_key"]}
    with pytest.raises(GrantError, match="Signature"):
        identity.issue(_statement(forged), "u/token")
    with pytest.raises(GrantError, match="account not found"):
        identity.issue(_statement(mine | {"client_email": "nobody"}), "u/token")


def _statement(key: dict[str, str]) -> bytes:
    """Return what an account sends for a token."""
    credentials = service_account.Credentials.from_service_account_info(
        key, scopes=SCOPES
    )
    return urlencode(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": credentials._make_authorization_grant_assertion(),
        }
    ).encode()


def _batch(server: Server, calls: list[str]) -> requests.Response:
    parts = "".join(
        f"--x\r\nContent-Type: application/http\r\n\r\n{call}\r\n\r\n\r\n"
        for call in calls
    )
    return server.session.post(
        f"{server.url}/batch/storage/v1",
        data=f"{parts}--x--\r\n",
        headers={"Content-Type": "multipart/mixed; boundary=x"},
    )


def _begin(server: Server, key: str, **query: object) -> str:
    arguments = urlencode({"uploadType": "resumable", **query})
    answer = server.session.post(
        f"{server.url}/upload/storage/v1/b/wren/o?{arguments}",
        data=json.dumps({"name": server.name(key)}),
        headers={"Content-Type": "application/json"},
    )
    return answer.headers["Location"]


def _send(session: str, data: bytes, span: str) -> requests.Response:
    headers = {"Content-Range": span}
    return requests.put(
        session, data, headers=headers, timeout=10, allow_redirects=False
    )
