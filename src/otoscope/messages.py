"""Error texts of other libraries as one line that gives no secret away.

Goal: what goes to a terminal, a log or a report names the place and what was wrong, never who may enter.
Conventions: credentials come from the environment, so a URL that carries any is refused, before anything prints it.
Contents: `is_url`, `refuse_secrets`, `one_line`, `clean`.
"""

import os
import re

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
USER = re.compile(r"(?<=://)[^\s/@]+@")
QUERY = re.compile(r"(://[^\s?#]*)[?#][^\s\"')\]]*")
SECRET_NAMES = re.compile(r"(AWS|AZURE|GOOGLE)_.*(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|SAS|CREDENTIAL)")
LEAST = 6  # characters of a secret that is looked for: shorter ones stand in ordinary words


def is_url(place: object) -> bool:
    """Whether a place is named by a URL; anything else is a local path."""
    return bool(URL.match(str(place)))


def refuse_secrets(url: str) -> None:
    """Raise ValueError for a URL with a user, a query or a fragment, without repeating them."""
    user, query = USER.search(url), QUERY.search(url)
    if is_url(url) and (user or query):
        what = "a user name or password" if user else "a part after '?' or '#'"
        raise ValueError(
            f"{clean(url)} was given with {what}; expected a URL without: put credentials into the environment, "
            "as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, cleaned, or its type; of a server's answer its code."""
    text = str(error)
    code = re.search(r"<Code>([^<]*)</Code>", text)
    first = re.split(r":? *<", text.splitlines()[0])[0] if code else (text.splitlines() or [""])[0]
    return clean(first + (f" ({code[1]})" if code else "")) or type(error).__name__


def clean(text: str) -> str:
    """The text without users and queries of URLs and without the values of secret environment variables."""
    for name, value in os.environ.items():
        if len(value) >= LEAST and SECRET_NAMES.fullmatch(name):
            text = text.replace(value, "***")
    return QUERY.sub(r"\1", USER.sub("", text))
