"""The story of a measurement: plan, interleave, sample, append."""
