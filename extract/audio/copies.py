"""Clips copied to a folder, for a person to play.

Goal: a whole file as it is, and of a part of a file that part alone, as the encoder was given it.
Conventions: nothing is overwritten, and nothing is written outside the folder, whatever clips are called. A clip that
cannot be copied does not keep the others from it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...messages import one_line
from .audio_root import AudioRoot
from .clip import Clip
from .decoding import read_clip, write_wav

MAX_STEM = 60  # letters of a file's own name that its copy keeps


def empty_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of a path, made if it is not there. Raises ValueError for a file, or a folder that is not empty."""
    folder = Path(path)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"{folder} is {'not empty' if folder.is_dir() else 'a file'}; expected an empty folder or a new one, as "
            "nothing is overwritten: choose another name"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copy_clips(
    root: AudioRoot, clips: Iterable[tuple[str, Clip]], folder: Path, sample_rate: int
) -> list[tuple[Clip, str]]:
    """Copy clips into a folder; gives those that could not be copied, with the reason.

    clips: with what the copy's name begins with (distinct; letters, digits and hyphens); the file's own name follows.
    sample_rate: in Hz, of parts of files, which become mono WAV of 16 bits.
    Raises FileExistsError where a copy's name is taken.
    """
    failed = []
    for beginning, clip in clips:
        file, whole = PurePosixPath(clip.path), clip.start is None and clip.stop is None
        stem, ending = re.sub(r"[^\w.-]+", "_", file.stem)[:MAX_STEM], re.sub(r"[^\w.]", "", file.suffix)[:MAX_STEM]
        target = folder / f"{beginning}_{stem}{ending if whole else '.wav'}"
        target.touch(exist_ok=False)
        try:
            if whole:
                target.write_bytes(root.read(clip.path))
            else:
                write_wav(target, read_clip(root, clip, sample_rate).samples, sample_rate)
        except (OSError, ValueError) as error:
            target.unlink()
            failed.append((clip, one_line(error)))
        except BaseException:
            target.unlink()
            raise
    return failed
