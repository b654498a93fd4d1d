"""Training judges from labelled pairs."""
