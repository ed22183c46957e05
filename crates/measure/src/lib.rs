//! `portway lab`: ways to forward side by side under the same loads, and what each costs.
//!
//! Two halves of one program: the command ([`run`]), and the stage ([`perform`]), the same program started again in namespaces
//! that end with it. What was found is a [`record`], from which everything else is made.
//!
//! Deliberately absent: the loads themselves (`portway-load`) and network namespaces (`portway-lab`).

mod absent;
pub mod actor;
pub mod advise;
pub mod capture;
pub mod compare;
pub mod event;
pub mod exact;
pub mod flows;
pub mod ground;
pub mod host;
pub mod interval;
pub mod lane;
pub mod load;
pub mod meter;
pub mod options;
pub mod perform;
pub mod plot;
pub mod profile;
mod progress;
pub mod quantity;
pub mod read;
pub mod record;
pub mod report;
pub mod rounds;
pub mod run;
pub mod schedule;
pub mod stage;
pub mod stats;
pub mod subject;
pub mod targets;
