"""Compiles a trained LeViT into one self-contained C library for an embedded CPU."""

import os

__version__ = "0.1.0"

# ONNX Runtime reads it when it is imported; else it makes a device id and a database in the user's
# cache, and reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
