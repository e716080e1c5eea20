"""Models of images and texts in one space (CLIP): built by open_clip, with attention taken apart."""
