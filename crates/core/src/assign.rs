//! Assignment: each rule's engine, and the reason in words.
