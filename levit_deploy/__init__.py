"""Compiles a trained LeViT into one self-contained C library for an embedded CPU."""

__version__ = "0.1.0"
