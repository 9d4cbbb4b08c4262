//! Encryption at rest for storage engines.
