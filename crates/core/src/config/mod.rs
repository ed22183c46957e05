//! Config: the shape of the file, nothing more.
