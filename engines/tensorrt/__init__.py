"""TensorRT: plans for the encoder and the head, built ahead of time and checked before they are loaded."""
