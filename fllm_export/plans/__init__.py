"""TensorRT plans: built from the ONNX graphs inside a bundle, and recorded there."""
