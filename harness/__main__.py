"""`python -m harness` is `nashbench`."""

from harness.cli.app import main

main()
