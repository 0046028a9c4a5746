"""What to say about a name that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message that names what was asked for, what is near it, and the rest.

    Args:
        what: The sort of thing, such as ``"backend"``.
        name: The name that is not among ``known``.
        known: Every valid name.
    """
    from difflib import get_close_matches  # only needed once something went wrong

    names = sorted(known)
    near = {each.casefold(): each for each in names}
    close = get_close_matches(name.casefold(), near, n=1)
    hint = f" (did you mean {near[close[0]]}?)" if close else ""
    return f"unknown {what} {name}{hint}; known: {', '.join(names) or 'none'}"
