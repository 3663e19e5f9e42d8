"""Masks and named structures, brought onto the grid of an image, and written again."""
