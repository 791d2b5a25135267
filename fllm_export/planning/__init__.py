"""What a table of users takes, before it is built: bytes, memory and time, from rates measured on this machine."""
