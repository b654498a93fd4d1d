"""From cells to stages."""
