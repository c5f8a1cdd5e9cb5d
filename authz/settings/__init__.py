"""Settings, by one name everywhere: flag, variable, field."""
