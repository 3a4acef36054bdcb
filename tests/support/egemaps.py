"""The names of the 88 eGeMAPS functionals, in order."""


def _of(name: str, *parts: str) -> list[str]:
    return [f"{name}_{part}" for part in parts or ("amean", "stddevNorm")]


CONTOUR = (
    "amean", "stddevNorm", "percentile20.0", "percentile50.0", "percentile80.0", "pctlrange0-2", "meanRisingSlope",
    "stddevRisingSlope", "meanFallingSlope", "stddevFallingSlope",
)  # fmt: skip
VOICE = ("jitterLocal", "shimmerLocaldB", "HNRdBACF", "logRelF0-H1-H2", "logRelF0-H1-A3")
FORMANTS = [f"F{i}{what}" for i in (1, 2, 3) for what in ("frequency", "bandwidth", "amplitudeLogRelF0")]
VOICED = ("alphaRatioV", "hammarbergIndexV", "slopeV0-500", "slopeV500-1500", "spectralFluxV")
UNVOICED = ("alphaRatioUV", "hammarbergIndexUV", "slopeUV0-500", "slopeUV500-1500", "spectralFluxUV")
NAMES = [
    *_of("F0semitoneFrom27.5Hz_sma3nz", *CONTOUR),
    *_of("loudness_sma3", *CONTOUR),
    *_of("spectralFlux_sma3"),
    *(name for i in range(1, 5) for name in _of(f"mfcc{i}_sma3")),
    *(name for own in (*VOICE, *FORMANTS, *VOICED) for name in _of(f"{own}_sma3nz")),
    *(name for i in range(1, 5) for name in _of(f"mfcc{i}V_sma3nz")),
    *(name for own in UNVOICED for name in _of(f"{own}_sma3nz", "amean")),
    "loudnessPeaksPerSec", "VoicedSegmentsPerSec", "MeanVoicedSegmentLengthSec", "StddevVoicedSegmentLengthSec",
    "MeanUnvoicedSegmentLength", "StddevUnvoicedSegmentLength", "equivalentSoundLevel_dBp",
]  # fmt: skip
