"""Remembered answers: what has Envoy repeat a yes of ours, and forget it in time."""
