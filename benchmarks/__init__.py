"""Side-by-side measurements against TRL and `generate`: `make bench`."""
