"""Pictures of many faces on one sheet: results, and found masks to review."""
