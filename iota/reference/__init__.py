"""Single-process trainers: the references for a swarm's results and speed."""
