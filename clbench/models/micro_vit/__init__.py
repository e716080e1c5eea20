"""micro-vit: a small vision transformer whose pretrained weights come with the package (see CARD.md)."""
