"""ONNX files that other tools exported from a LeViT -> its weights."""
