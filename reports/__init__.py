"""Reports: finished tables in, static HTML pages out.

Knows nothing of models, and of metrics only what metrics.json says.
"""

from reports.audit import audit_page
from reports.build import build

__all__ = ["audit_page", "build"]
