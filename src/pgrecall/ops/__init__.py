"""What an operator does: provision, migrate, verify, examine, import and export."""
