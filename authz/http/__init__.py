"""What every door for HTTP has in common: refusals by protocol, spellings of paths, isolation of requests."""
