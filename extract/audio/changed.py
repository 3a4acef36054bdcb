"""Audio that is no longer what was decoded: a store's digests against the files of today.

Goal: blocks whose audio changed since are found, so that they can be extracted again.
Conventions: one line for each thing found, as in `otoscope.store.verify`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ...store.blocks import Block
from ...store.changes.tasks import restore_documents
from ...store.status import audio_digests, store_status
from ...store.verify import remedies, verify
from ...store.writer import reset_block
from .audio_root import root_at
from .clip import Clip
from .decoding import ABSENT, content_digest


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
        decoded = ((b, path, n) for b, path, n, reason in audio_digests(url, task.task) if n or reason == ABSENT)
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


def check_store(url: str, audio_root: str | None, *, reset: bool, report: Callable[[str], None]) -> list[str]:
    """Report damage of a store, and with an audio root changed files, a line each; returns what to do about it.

    reset: put the blocks in question back, for the same extraction to do again, and documents as their task's own has
        them, which undoes a change that was begun and not completed.
    """
    found = list(verify(url))
    for damage in found:
        report(str(damage))
    damaged = [damage for damage in found if not damage.pending]
    again = {damage.block for damage in damaged if damage.block}
    todo = remedies(damaged)
    if audio_root is not None:
        changed = list(changed_audio(url, audio_root))
        for line in dict.fromkeys(what for _, what in changed):
            report(line)
        again |= {block for block, _ in changed if block}
        if any(block for block, _ in changed):
            command = f"otoscope verify --audio {audio_root} --reset"
            todo.append(
                f"put changed files' blocks back by `{command}`, then extract again, and encode its latents again"
            )
        if any(not block for block, _ in changed):
            todo.append("put absent files back")
    if reset:
        for task in sorted({damage.task for damage in damaged if damage.restorable}):
            restore_documents(url, task)
            report(f"{task}: documents are those of the task again")
        for block in sorted(again, key=lambda block: (block.task, block.index)):
            reset_block(url, block)
            report(f"{block.task} block {block.index} is pending again")
        todo = [remedy for remedy in todo if "--reset" not in remedy]
        if again:
            todo.insert(0, "run the same `otoscope extract`, or of latents `otoscope sae encode`, again")
    return todo
