"""Say how wrong a student is, where, and whether its physics holds."""
