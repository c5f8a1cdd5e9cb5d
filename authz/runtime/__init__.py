"""Time, threads, questions to other servers, files: what knows nothing of calls."""
