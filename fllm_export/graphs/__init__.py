"""The ONNX graphs of a bundle: the encoder (torch to ONNX), the tiled head (plain ONNX) and their checks."""
