"""URLs of buckets, and the names of objects in them."""

from __future__ import annotations

import pytest

from wren.errors import ConfigurationError
from wren.storage.location import Location

EXAMPLE = "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a", "bucket", "a/"),
        ("s3://bucket/a/b/", "bucket", "a/b/"),
        ("s3://bucket/with%20space", "bucket", "with space/"),
    ],
)
def test_a_url_is_taken_apart(url: str, bucket: str, prefix: str) -> None:
    """A trailing slash makes no other store of it."""
    assert Location.parse(url, example=EXAMPLE) == (bucket, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "s3:",
        "s3://",
        "s3:///prefix",
        "s3://user:hush@bucket",
        "s3://bucket:80/a",
        "s3://bucket?hush=1",
        "s3://bucket/a#b",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket/" + "x" * 1025,
    ],
)
def test_another_url_is_refused_without_its_secrets(url: str) -> None:
    """A typing error must not become a bucket, nor a password a log line."""
    with pytest.raises(ConfigurationError) as caught:
        Location.parse(url, example=EXAMPLE)

    assert "hush" not in str(caught.value)


def test_names_begin_with_the_prefix_and_keys_do_not() -> None:
    """Two stores in one bucket do not see each other."""
    location = Location.parse("s3://bucket/a", example=EXAMPLE)

    assert location.full("k/x") == "a/k/x"
    assert location.relative("a/k/x") == "k/x"


def test_a_key_that_fits_only_without_the_prefix_is_refused() -> None:
    """The limit is the bucket's, and the prefix counts."""
    location = Location.parse("s3://bucket/abc", example=EXAMPLE)

    assert location.full("x" * 1020)
    with pytest.raises(ValueError, match="room for 1020"):
        location.full("x" * 1021)


def test_a_hostile_key_is_refused() -> None:
    """The rule is the same for every store."""
    with pytest.raises(ValueError, match=r"'\.\.'"):
        Location("bucket", "").full("../x")
