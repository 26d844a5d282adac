"""What a validation shows: tables, plots and one page that opens anywhere."""
