//! One SQLite file, one thread that owns it, and transactions that many callers share.
