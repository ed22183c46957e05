//! The load generator: connections, requests, streams and datagrams towards one address, and what became of them.
//!
//! Deliberately absent: who is loaded and what it costs there (`portway-measure`), and network namespaces: a load runs where
//! its process is.
