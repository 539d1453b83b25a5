"""What was asked, answered and decided: one database, SQLite by default, PostgreSQL by URL."""
