"""VoxForge: read sentences in German, English, Spanish, French, Italian and Russian, sent in by volunteers.

Goal: the archives of voxforge_urls.txt, unpacked, as a manifest labelled by language.
Conventions: as in `layout`; an archive is one submission and unpacks to SUBMISSION/wav/*.wav. Its language is the
folder above "Trunk" where the archives were unpacked in the folders of the server; where they lie side by side, the
list of addresses says it. The part of a submission's name before the first "-" is its speaker; "anonymous" is nobody
in particular, so such a submission counts as a speaker of its own.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from .layout import DataSet, draw, files, parse_paths, require_file, tails, with_splits

LANGUAGES = ("de", "en", "es", "fr", "it", "ru")
ADDRESSES = "voxforge_urls.txt"
PER_LANGUAGE = 5000


def table(root: Path, *, urls: Path | None = None, splits: Path | None = None) -> pd.DataFrame:
    """Clips with language and speaker, and their split if a table of splits is given.

    urls: the list of the archives' addresses, default ROOT/voxforge_urls.txt; needed only if the path does not tell
    the language.
    splits: a table with `file_name` (ending SUBMISSION/wav/FILE.wav) and `split`.
    """
    pattern, expected = r"(.*/)?(?P<submission>[^/]+)/wav/[^/]+", "unpacked archives with SUBMISSION/wav/*.wav"
    found = files(root, (".wav",), expected, like=f"^{pattern}$")
    paths, submissions = (parse_paths(root, found, pattern, expected)[name] for name in ("path", "submission"))
    languages = paths.map(_language_of_path)
    unsaid, address_list = languages == "", urls or root / ADDRESSES
    if unsaid.any():
        require_file(address_list, "the list of the archives' addresses, since the folders do not tell languages")
        # Such as HOST/downloads/de/Trunk/Audio/Main/16kHz_16bit/SUBMISSION.tgz, in quotes or without.
        addresses = [line.strip().strip("\"'") for line in address_list.read_text(encoding="utf-8").splitlines()]
        listed = {PurePosixPath(address).stem: _language_of_path(address) for address in addresses if address}
        languages = languages.mask(unsaid, submissions.map(listed).fillna(""))
        if (languages == "").any():
            raise ValueError(
                f"{root}: {paths[languages == ''].iloc[0]!r} is of an archive that {address_list} does "
                "not list; expected the language from there or from a folder LANGUAGE/Trunk above it; give the list "
                "that the archives were downloaded by"
            )
    speakers = submissions.str.partition("-")[0]
    clips = pd.DataFrame(
        {"path": paths, "language": languages, "speaker": speakers.mask(speakers == "anonymous", submissions)}
    )
    return with_splits(clips, splits, 3)


def _language_of_path(path: str) -> str:
    """The folder above "Trunk", "" if there is none."""
    above, trunk, _ = path.partition("/Trunk/")
    return above.rpartition("/")[2] if trunk else ""


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
