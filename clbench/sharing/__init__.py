"""Records in one file: packing them for others (`export_runs`), and taking in those of others (`import_archive`)."""
