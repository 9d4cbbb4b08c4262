//! An encrypting object store over any other one.
