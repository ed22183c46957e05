//! The proxy plan.
