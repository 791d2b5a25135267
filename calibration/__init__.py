"""Item texts for calibration and parity, and what is measured on them."""
