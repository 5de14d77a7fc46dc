"""What outlives a replica: voices and the consents they were made with, in SQLite or PostgreSQL."""
