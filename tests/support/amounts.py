"""How much a slow test asks: a sample, or with OTOSCOPE_WHOLE=1 all that figures in documents and issues are of."""

import os

WHOLE = os.environ.get("OTOSCOPE_WHOLE", "0") != "0"


def some(n: int, of: int) -> int:
    """n, or all of them where the whole is asked for."""
    return of if WHOLE else n
