//! `portway lab`: ways to forward side by side under the same loads, and what each costs.
//!
//! Deliberately absent: the loads themselves (`portway-load`) and network namespaces (`portway-lab`).

pub mod record;
pub mod stats;
