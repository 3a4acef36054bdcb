"""Errors of other libraries as one line without secrets.

Goal: what goes to a terminal, a log or a report names the path and what was wrong, and no credentials.
Conventions: a URL's user and query, and the values of environment variables that hold credentials, are left out.
"""

import os
import re

USER = re.compile(r"(?<=://)[^\s/@]+@")
QUERY = re.compile(r"(://[^\s?#]*)[?#][^\s\"')\]]*")
SECRET_NAMES = re.compile(r"(AWS|AZURE|GOOGLE)_.*(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|SAS|CREDENTIAL)")
MAX_QUOTED = 80  # characters of what a user's file holds: a cell of a megabyte would drown the message
MIN_SECRET = 6  # characters of a secret that is looked for: shorter ones occur in ordinary words


def one_line(error: BaseException, *, whole: bool = False) -> str:
    """An exception's message on one line without secrets, or its type where it has none.

    whole: all of it; else its first line, of an object store's answer (XML) also the code.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if whole:
        return clean(" ".join(text.split())) or type(error).__name__
    first = (text.splitlines() or [""])[0]
    if code := re.search(r"<Code>([^<]*)</Code>", text):
        first = f"{re.split(r':? *<', first)[0]} ({code[1]})"
    return clean(first) or type(error).__name__


def clean(text: str) -> str:
    """The text without users and queries of URLs and without the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET and SECRET_NAMES.fullmatch(name):
            text = text.replace(value, "***")
    return QUERY.sub(r"\1", USER.sub("", text))


def quoted(text: str) -> str:
    """Text of a user's file in quotes, control characters escaped, cut where it is long."""
    return repr(text) if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]!r}..."
