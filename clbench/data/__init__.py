"""Image and text sets on disk: finding, reading, checking, fetching. The layout is described in docs/data.md."""
