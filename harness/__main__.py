"""`python -m harness` is `nashbench`."""

from harness.cli import main

main()
