"""The two loops that fit any algorithm, and what they share: optimiser, log-probabilities, packing, processes."""
