"""One user table on many machines: answers merged from parts, batch scoring and building, with Ray as the transport."""
