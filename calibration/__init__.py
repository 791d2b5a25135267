"""What is measured on real item texts before a bundle is written."""
