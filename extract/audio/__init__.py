"""From a manifest to waveforms: clips, corpora, decoding, containers, public data sets."""
