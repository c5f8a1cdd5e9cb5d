"""Time, threads, questions to other servers, and files; independent of calls."""
