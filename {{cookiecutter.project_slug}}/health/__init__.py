"""Is a process alive, and is it ready? Two questions, that web, worker and beat answer each for itself."""
