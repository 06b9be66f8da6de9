"""What the ledger is for: schedules chosen by the exact theory."""
