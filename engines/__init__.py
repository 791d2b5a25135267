"""What executes a scan over the user table, behind one protocol."""
