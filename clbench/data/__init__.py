"""Image and text sets on disk: found, read, checked, fetched. docs/data.md describes the layout."""
