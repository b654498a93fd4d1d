"""The command line."""

import sys

from harness.cli.guards import check_imports

__all__ = ["main"]


def main() -> None:
    """Run the command line, once the packages that it imports are known to be ours; exit code 2 where they are not."""
    try:
        check_imports()
    except ValueError as error:
        sys.exit(_refuse(error))
    from harness.cli.app import main as run

    run()


def _refuse(error: ValueError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2
