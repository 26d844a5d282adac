"""Speed of students: measurements, comparison with earlier measurements, plots."""
