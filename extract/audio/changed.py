"""Audio that is no longer what was decoded: a store's digests against the files of today.

Goal: blocks whose audio changed since are found, so that they can be extracted again.
Conventions: one line for each thing found, as in `otoscope.store.verify`.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...store.blocks import Block
from ...store.verify import heard_audio, store_status
from ..loader import ABSENT
from .audio_root import root_at
from .clip import Clip
from .decoding import content_digest


def changed_audio(url: str, audio_root: str | Path) -> Iterator[tuple[Block | None, str]]:
    """Audio files that are no longer those that were extracted: one line each, with the block to extract again.

    A file that is gone has no block: there is nothing to extract again from. A file with clips in several blocks is
    named for each of them.
    audio_root: a folder or URL. Raises OSError for a file that cannot be read.
    """
    root = root_at(audio_root)
    for task in store_status(url):
        present: dict[str, int] = {}  # digests of what is there now, 0 for nothing
        # A clip that was not read although its file was there has killed its worker, and says nothing of the file.
        decoded = ((b, path, n) for b, path, n, reason in heard_audio(url, task.task) if n or reason == ABSENT)
        for block, path, digest in dict.fromkeys(decoded):
            if path not in present:
                present[path] = 0
                with suppress(FileNotFoundError):
                    present[path] = content_digest(root, Clip(name=path, path=path))
            if present[path] == digest:
                continue
            if not present[path]:
                yield None, f"{task.task}: {path} is not under {root}"
            else:
                what = "is not the file that was extracted" if digest else "was absent and now is there"
                yield block, f"{task.task}: {path} {what}"
