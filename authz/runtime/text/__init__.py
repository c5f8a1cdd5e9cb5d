"""Text in files, logs and terminals."""
