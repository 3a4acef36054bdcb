"""From a manifest to waveforms: clips, corpora, decoding, integrity, public data sets."""
