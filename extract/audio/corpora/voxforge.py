"""VoxForge: read sentences in German, English, Spanish, French, Italian and Russian, sent in by volunteers.

Goal: the archives of voxforge_urls.txt, unpacked, as a manifest labelled by language.
Conventions: as in `layout`; an archive is one submission and unpacks to SUBMISSION/wav/*.wav. Its language is the
folder above "Trunk" where the archives were unpacked in the folders of the server; where they lie side by side, the
list of addresses says it. The part of a submission's name before the first "-" is its speaker; "anonymous" is nobody
in particular, so such a submission counts as a speaker of its own.
Contents: `LANGUAGES`, `table`, `DATA_SET`.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from .layout import DataSet, assign_splits, draw, files, read_splits, require_file, require_files, tails

LANGUAGES = ("de", "en", "es", "fr", "it", "ru")
ADDRESSES = "voxforge_urls.txt"
PER_LANGUAGE = 5000


def table(root: Path, *, urls: Path | None = None, splits: Path | None = None) -> pd.DataFrame:
    """Clips with language and speaker, and their split if a table of splits is given.

    urls: the list of the archives' addresses, default ROOT/voxforge_urls.txt; needed only if the path does not tell
    the language.
    splits: a table with `file_name` (ending SUBMISSION/wav/FILE.wav) and `split`.
    """
    found = [path for path in files(root, (".wav",)) if path.count("/") >= 2 and path.split("/")[-2] == "wav"]
    require_files(found, root, "unpacked archives with SUBMISSION/wav/*.wav")
    paths = pd.Series(found)
    submissions = paths.str.split("/").str[-3]
    languages = paths.map(_language_of_path)
    unsaid = languages == ""
    if unsaid.any():
        listed = _languages_listed(urls or root / ADDRESSES)
        languages = languages.mask(unsaid, submissions.map(listed).fillna(""))
        if (languages == "").any():
            raise ValueError(
                f"{root}: {paths[languages == ''].iloc[0]!r} is of an archive that {urls or root / ADDRESSES} does "
                "not list; expected the language from there or from a folder LANGUAGE/Trunk above it; give the list "
                "that the archives were downloaded by"
            )
    speakers = submissions.str.partition("-")[0]
    clips = pd.DataFrame(
        {"path": paths, "language": languages, "speaker": speakers.mask(speakers == "anonymous", submissions)}
    )
    return clips if splits is None else clips.assign(split=assign_splits(paths, read_splits(splits), 3, splits))


def _language_of_path(path: str) -> str:
    """The folder above "Trunk", "" if there is none."""
    above, trunk, _ = path.partition("/Trunk/")
    return above.rpartition("/")[2] if trunk else ""


def _languages_listed(urls: Path) -> dict[str, str]:
    """Submission -> language, from addresses such as HOST/downloads/de/Trunk/Audio/Main/16kHz_16bit/SUBMISSION.tgz."""
    require_file(urls, "the list of the archives' addresses, since the folders do not tell languages")
    addresses = [line.strip().strip("\"'") for line in urls.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {PurePosixPath(address).stem: _language_of_path(address) for address in addresses}


def paper(clips: pd.DataFrame, seed: int) -> pd.DataFrame:
    """5,000 clips of each language. The number is the paper's, the rule is ours: see `layout.draw`."""
    return clips[draw(tails(clips["path"], 3), clips["language"], PER_LANGUAGE, seed)]


DATA_SET = DataSet(
    name="voxforge",
    title="VoxForge, spoken languages",
    layout="LANGUAGE/Trunk/.../SUBMISSION/wav/*.wav, or SUBMISSION/wav/*.wav and voxforge_urls.txt",
    table=table,
    labels=("language",),
    categories={"language": LANGUAGES},
    clips=176428,
    unit_sec=5.8,
    options=("urls", "splits"),
    paper=paper,
    paper_clips=len(LANGUAGES) * PER_LANGUAGE,
)
