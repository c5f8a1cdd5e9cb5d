"""Observers for OpenTelemetry (extra ``otel``): log records, figures, and attributes of spans."""
