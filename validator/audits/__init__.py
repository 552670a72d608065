"""The jobs of audits: evidence fetched and checked, ops replayed and compared, verdicts signed."""
