"""micro-clip: a small model of images and texts whose trained weights come with the package (see CARD.md)."""
