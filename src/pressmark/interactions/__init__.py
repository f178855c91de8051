"""What people did: the log, the splits, histories and cases."""
