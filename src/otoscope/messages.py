"""Text for people: errors of other libraries as one line without secrets, names without control characters.

Goal: what goes to a terminal, a log or a report names the path and what was wrong, no credentials, and nothing that
moves a cursor, recolours, or reverses what is read.
Conventions: a URL's user and query, and the values of environment variables that hold credentials, are left out.
Control characters are shown as JSON escapes them, so that JSON stays JSON.
"""

import json
import os
import re

USER = re.compile(r"(?<=://)[^\s/@]+@")
QUERY = re.compile(r"(://[^\s?#]*)([?#][^\s\"')\]]*)?")  # optional, or text of many :// would take for ever
SECRET_NAMES = re.compile(r"(AWS|AZURE|GOOGLE)_.*(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|SAS|CREDENTIAL)")
MAX_QUOTED = 80  # characters of what a user's file holds: a cell of a megabyte would drown the message
# Cc but for tab and line feed, Zl, Zp, surrogates, and signs that are not seen or change the direction of others.
CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
CONTROL = re.compile(f"[{CONTROLS}\ud800-\udfff]")
MAX_LINE = 20_000  # characters of a message: who damaged a document chooses how much of it is quoted
BREAK = re.compile(r"[\t\n]")
MIN_SECRET = 6  # characters of a secret that is looked for: shorter ones occur in ordinary words


def one_line(error: BaseException, *, whole: bool = False) -> str:
    """An exception's message on one line without secrets, or its type where it has none.

    whole: all of it; else its first line, of an object store's answer (XML) also the code.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if len(text) > MAX_LINE:
        text = f"{text[: MAX_LINE // 2]} ... {text[-MAX_LINE // 2 :]}"
    if whole:
        return clean(" ".join(text.split())) or type(error).__name__
    first = (text.splitlines() or [""])[0]
    if code := re.search(r"<Code>([^<]*)</Code>", text):
        first = f"{re.split(r':? *<', first)[0]} ({code[1]})"
    return clean(first) or type(error).__name__


def clean(text: str) -> str:
    """The text, its lines and tabs kept, without control characters, users and queries of URLs, and the values of
    secret environment variables.
    """
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET and SECRET_NAMES.fullmatch(name):
            text = text.replace(value, "***")
    return printable(QUERY.sub(r"\1", USER.sub("", text)))


def quoted(text: str) -> str:
    """Text of a user's file in quotes, control characters escaped, cut where it is long."""
    return repr(text) if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]!r}..."


def printable(text: str) -> str:
    """The text, its lines and tabs kept, without control characters."""
    return CONTROL.sub(_escape, text)


def visible(text: str) -> str:
    """A name in a line or a cell: without control characters, line feeds and tabs among them."""
    return BREAK.sub(_escape, printable(text))


def _escape(found: re.Match[str]) -> str:
    """As in JSON: two escapes beyond U+FFFF."""
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"
