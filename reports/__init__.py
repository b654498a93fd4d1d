"""Reports: finished tables in, static HTML pages out.

Knows nothing of models, and of metrics only what metrics.json says.
"""

from reports.build import build

__all__ = ["build"]
