"""Labels of a teacher for many structures, in resumable chunks."""
