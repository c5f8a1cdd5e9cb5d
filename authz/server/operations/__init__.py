"""What operators see of a server: its banner, probes, metrics and admin page."""
