"""Commands at a terminal: exit codes and error messages, prompts, redaction of URLs."""
