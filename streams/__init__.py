"""Streams: one family a file."""
