"""Float graphs in the forms that an INT8 backend is exact and fast at."""
