"""The token that Ray's clusters of this machine demand: made once, by whichever process is first.

Goal: two runs that start at the same moment in a home without a token do not each make one, of which one is then wrong.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile


def make_token() -> None:
    """Write `~/.ray/auth_token`, for its owner alone, unless it exists or the environment says which token counts.

    Linked into place whole, and never over another. Where it cannot be written, Ray itself says so.
    """
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    path = Path.home() / ".ray" / "auth_token"
    if named or os.environ.get("RAY_AUTH_MODE", "token") != "token" or path.exists():
        return
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, prefix=".auth_token.") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.link(file.name, path)
