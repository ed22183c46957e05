//! The load generator: connections, requests, streams and datagrams towards one address, and what became of them.
//!
//! ```no_run
//! use portway_load::{Exchange, Load, Plan, Stop, run};
//!
//! let mut plan = Plan::new("192.0.2.1:80".parse()?, Load::Connections(Exchange::get("192.0.2.1", "/")));
//! plan.rate = Some(5_000.0);
//! let outcome = run(&plan, &Stop::new(), |progress| eprintln!("{} answered", progress.done))?;
//! println!("{:.0} a second, {:?}", outcome.rate(), outcome.latency);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every thread is an epoll loop over its own sockets, as in the proxy engine and for the same reason: the generator runs
//! beside what it measures, so what it costs per request must be little and known. A request allocates nothing, and memory
//! grows with the connections, not with time or rate.
//!
//! Deliberately absent: who is loaded and what it costs there (`portway-measure`), and network namespaces: a load runs where
//! the thread is that calls [`run()`].
#![forbid(unsafe_code)]

mod answer;
mod bulk;
mod context;
mod drive;
mod idle;
mod outcome;
mod pace;
mod plan;
mod run;
mod serve;
mod socket;
mod stamp;
mod tcp;
mod udp;

pub use outcome::{ErrorKind, Errors, Latency, Outcome};
pub use plan::{Close, Direction, Exchange, Length, Load, Plan, PlanError};
pub use run::{Error, Progress, Stop, run};
pub use serve::{Options as ServeOptions, Server};
pub use stamp::datagram;
