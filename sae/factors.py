"""Factors: acoustic features of clips, as eGeMAPS measures a voice; the only door to opensmile.

Goal: what a dictionary's codes may stand for, measured on the very audio that the encoder was given.
Conventions: the 88 functionals of eGeMAPSv02 under opensmile's names, in its order; float32, NaN in a row that has a
reason. Digests as in a store. opensmile's licence (audEERING) is for research and not for commercial use.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd

from ..extract.audio.corpus import Corpus
from ..extract.audio.decoding import ABSENT, DEFAULT_LIMITS, BadAudio, Limits, read_clip
from ..extract.audio.manifest import corpus_of
from ..store.provenance import check_unit_sec

FEATURE_SET = "eGeMAPSv02"
MIN_SECONDS = 0.06  # of audio: the frame in which a pitch is looked for
MAX_SAMPLE = 32767 / 32768  # opensmile takes 16 bits, and 1.0 would come out as -1.0


def factors_of(
    corpus: Corpus | str | Path | pd.DataFrame,
    audio_root: str | Path | None = None,
    *,
    unit_sec: float | str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], object] = lambda n: None,
) -> pd.DataFrame:
    """Features of each clip, a row for each in the corpus' order: clip (name), audio_digest (uint64), the 88, reason.

    A clip is decoded as for an encoder (start to stop, channels averaged, no more than `unit_sec`), but stays at its
    file's own sample rate, and a clip that is shorter is not padded. `reason`: why a clip has no features, else "";
    the digest is 0 where the file was not read. attrs: feature_set, the version of opensmile, unit_sec (None for native
    lengths), and sample_rates, the number of decoded clips by rate in Hz, as features depend on it.
    unit_sec: seconds, "native", or None for what the corpus says. progress: called with so many clips as they end.
    Raises ImportError without opensmile, ValueError where no clip has features, OSError for audio that is there and
    cannot be read, and as `corpus_of`.
    """
    package = opensmile_module()
    corpus = corpus_of(corpus, audio_root)
    unit: Any = corpus.unit_sec if unit_sec is None else None if unit_sec == "native" else unit_sec
    check_unit_sec(unit)
    smile = package.Smile(feature_set=package.FeatureSet[FEATURE_SET], feature_level=package.FeatureLevel.Functionals)
    n, features = len(corpus), list(smile.feature_names)
    values = np.full((n, len(features)), np.nan, np.float32)
    digests, reasons, rates = np.zeros(n, np.uint64), [""] * n, Counter[int]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Segment too short", UserWarning)
        for i in range(n):
            try:
                audio = read_clip(corpus.clips.root, corpus.clips.clip(i), None, seconds=unit, limits=limits)
            except BadAudio as bad:
                digests[i], reasons[i] = bad.digest, str(bad)
            except FileNotFoundError:
                reasons[i] = ABSENT
            else:
                rate, digests[i] = audio.sample_rate, audio.digest
                rates[rate] += 1
                samples = np.clip(audio.samples, -1.0, MAX_SAMPLE)
                values[i] = smile.process_signal(samples, rate).to_numpy()[0]
                if np.isnan(values[i]).all():
                    found = f"{len(samples)} samples at {rate} Hz"
                    reasons[i] = f"too short: {found}, opensmile needs {MIN_SECONDS:g} s"
            progress(1)
    names = corpus.clips.table["name"].tolist()
    if all(reasons):
        raise ValueError(
            f"none of {n} clips has factors, the first, {names[0]}: {reasons[0]}; expected audio of at least "
            f"{MIN_SECONDS:g} s: see that the audio root, the times of the manifest and unit_sec are right"
        )
    columns = dict(zip(features, values.T, strict=True))
    table = pd.DataFrame({"clip": names, "audio_digest": digests, **columns, "reason": reasons})
    table.attrs = {
        "feature_set": FEATURE_SET, "opensmile": package.__version__, "unit_sec": unit,
        "sample_rates": {str(rate): rates[rate] for rate in sorted(rates)},
    }  # fmt: skip
    return table


def opensmile_module() -> ModuleType:
    """The opensmile package. Raises ImportError that says how to install it."""
    try:
        import opensmile
    except ImportError as error:
        raise ImportError(
            f"factors need opensmile ({error}); expected it to be installed: pip install 'otoscope[sae]' (audEERING's "
            "licence: for research, not for commercial use)"
        ) from error
    return cast(ModuleType, opensmile)
