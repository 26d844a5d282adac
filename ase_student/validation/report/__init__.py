"""Report of a validation: tables, plots and a self-contained HTML page."""
