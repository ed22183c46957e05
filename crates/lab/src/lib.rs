//! The lab: networks made of namespaces, real programs as peers, and scenarios that put Portway between them.
//!
//! The lab knows Portway only from the outside: the `portway` binary, its file, its output. So what passes
//! here works for a user, and nothing here has to change when the inside does. Everything panics with a
//! sentence: the callers are tests, and the stage of `portway lab`.
//!
//! Deliberately absent: any Portway crate as a dependency, and any way to skip. A missing program, or no
//! root, is a failure that says what to install.

pub mod cgroup;
pub mod chance;
pub mod client;
pub mod counter;
pub mod dns;
pub mod emulated;
pub mod engine;
pub mod farm;
pub mod foreign;
pub mod gateway;
pub mod hook;
pub mod hops;
pub mod load;
pub mod machine;
pub mod netns;
pub mod over;
pub mod peer;
pub mod perf;
pub mod pins;
pub mod pools;
pub mod portway;
pub mod process;
pub mod raw;
pub mod raw_v6;
pub mod scenario;
pub mod scratch;
mod sys;
pub mod toa;
pub mod topology;
pub mod traces;
pub mod traffic;
pub mod wire;

pub use cgroup::Cgroup;
pub use dns::Dns;
pub use engine::Engine;
pub use farm::Farm;
pub use netns::Namespace;
pub use over::Ends;
pub use portway::Portway;
pub use process::Process;
pub use scratch::Scratch;
pub use topology::Topology;
