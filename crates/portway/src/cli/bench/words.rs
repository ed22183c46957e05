//! The words of `portway bench` (clap), and the plan that they make.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use portway_load::{Close, Direction, Exchange, Length, Load, Plan};

use super::super::args::{Output, duration};

/// What `portway bench` is asked for.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Bench {
    /// HTTP/1.1 GET requests, to any web server
    Http {
        /// http://HOST[:PORT][/PATH], or HOST:PORT[/PATH]
        #[arg(value_name = "URL")]
        target: String,
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        requests: Requests,
    },
    /// Messages that come back as they were, to `portway bench serve`, or to any echo server with --keepalive
    Tcp {
        /// Where the server listens
        #[arg(value_name = "HOST:PORT")]
        target: String,
        /// Bytes of a message, 24 to 16777216
        #[arg(long, value_name = "BYTES", default_value_t = 64)]
        size: usize,
        #[command(flatten)]
        connections: Connections,
        #[command(flatten)]
        requests: Requests,
    },
    /// Datagrams that come back as they were, to `portway bench serve` or any echo server
    Udp {
        /// Where the server listens
        #[arg(value_name = "HOST:PORT")]
        target: String,
        /// Bytes of a datagram, 24 to 65507
        #[arg(long, value_name = "BYTES", default_value_t = 64)]
        size: usize,
        /// Send each from a new port: a flow of its own
        #[arg(long)]
        new_flows: bool,
        #[command(flatten)]
        requests: Requests,
    },
    /// TCP streams, to or from `portway bench serve`
    #[command(group = clap::ArgGroup::new("direction").required(true))]
    Bulk {
        /// Where the server listens
        #[arg(value_name = "HOST:PORT")]
        target: String,
        /// To the server
        #[arg(long, group = "direction")]
        up: bool,
        /// From the server
        #[arg(long, group = "direction")]
        down: bool,
        /// Streams at a time
        #[arg(short, long, value_name = "N", default_value_t = 1)]
        streams: u32,
        #[command(flatten)]
        time: Time,
        #[command(flatten)]
        common: Common,
    },
    /// TCP connections that are made and held without a word, to any server that waits for its client
    Idle {
        /// Where the server listens
        #[arg(value_name = "HOST:PORT")]
        target: String,
        /// Connections
        #[arg(short = 'n', long, value_name = "N", default_value_t = 1000)]
        connections: u32,
        /// How long they are held, once all are there
        #[arg(short, long, value_name = "TIME", value_parser = duration, default_value = "10s")]
        duration: Duration,
        #[command(flatten)]
        common: Common,
    },
    /// The other side: serve echo, pages (GET / and GET /BYTES), streams and datagrams, TCP and UDP on one port
    Serve {
        /// Where: 192.0.2.1:9000, [::]:9000. Datagrams are answered from the address that routes choose: name the one
        /// that is asked where a host has several
        #[arg(required = true, value_name = "ADDRESS:PORT")]
        listen: Vec<SocketAddr>,
        /// Bytes of the page that GET / answers with
        #[arg(long, value_name = "BYTES", default_value_t = 1000)]
        page: u64,
        /// Threads
        #[arg(long, value_name = "N", default_value_t = 1)]
        threads: u32,
    },
}

/// How connections are used.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Connections {
    /// Keep connections for the next request instead of making one for each
    #[arg(short, long, conflicts_with = "close")]
    keepalive: bool,
    /// Who ends a connection: the server, asked to (wait); this side, whose ports then rest for a minute (fin); this side
    /// by a reset, which leaves nothing behind (reset)
    #[arg(long, value_name = "HOW", default_value = "wait")]
    close: HowToClose,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HowToClose {
    Wait,
    Fin,
    Reset,
}

/// How many requests, and when.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Requests {
    /// At a time; with --rate the most at a time
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    concurrency: u32,
    /// Requests per second, due on a schedule; latency counts from when they were due (open loop). Without it the next
    /// begins when one ends (closed loop)
    #[arg(short, long, value_name = "R")]
    rate: Option<f64>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// How long an answer may take [default: 10s; of datagrams 1s, after which they are lost]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    common: Common,
}

/// How long.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Time {
    /// How long, warm-up excluded
    #[arg(short, long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// What is done before anything is counted
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    warm_up: Duration,
}

/// What every load has.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Common {
    /// Come from these addresses of this host in turn; one has about 28000 ports by default
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    from: Vec<IpAddr>,
    /// How long making a connection may take
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    connect_timeout: Duration,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

/// A load as asked for.
pub(super) struct Asked {
    pub(super) plan: Plan,
    /// Whether to print JSON.
    pub(super) json: bool,
}

impl Bench {
    /// The plan of a load; `None` of the server.
    pub(super) fn plan(&self) -> Result<Option<Asked>, String> {
        let asked = match self {
            Self::Http { target, connections, requests } => {
                let (authority, path) = url(target)?;
                let exchange = Exchange::get(authority, path);
                let authority =
                    if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
                requests.plan(&authority, connections.load(exchange), Some(connections))?
            }
            Self::Tcp { target, size, connections, requests } => {
                let load = connections.load(Exchange::Echo { size: *size });
                requests.plan(target, load, Some(connections))?
            }
            Self::Udp { target, size, new_flows, requests } => {
                requests.plan(target, Load::Udp { size: *size, fresh: *new_flows }, None)?
            }
            Self::Bulk { target, up, down: _, streams, time, common } => {
                let direction = if *up { Direction::Up } else { Direction::Down };
                let mut asked = common.plan(target, Load::Bulk(direction), time.duration)?;
                (asked.plan.concurrency, asked.plan.warm_up) = (*streams, time.warm_up);
                asked
            }
            Self::Idle { target, connections, duration, common } => {
                let mut asked = common.plan(target, Load::Idle, *duration)?;
                (asked.plan.concurrency, asked.plan.warm_up) = (*connections, Duration::ZERO);
                asked
            }
            Self::Serve { .. } => return Ok(None),
        };
        Ok(Some(asked))
    }
}

impl Connections {
    fn load(&self, exchange: Exchange) -> Load {
        if self.keepalive { Load::Keepalive(exchange) } else { Load::Connections(exchange) }
    }
}

impl Requests {
    fn plan(&self, target: &str, load: Load, connections: Option<&Connections>) -> Result<Asked, String> {
        let mut asked = self.common.plan(target, load, self.time.duration)?;
        let plan = &mut asked.plan;
        plan.concurrency = self.concurrency;
        plan.rate = self.rate;
        plan.warm_up = self.time.warm_up;
        plan.timeout = self.timeout.unwrap_or(plan.timeout);
        if let Some(count) = self.requests {
            plan.length = Length::Count(count);
        }
        plan.close = match connections.map(|connections| connections.close) {
            None | Some(HowToClose::Wait) => Close::Wait,
            Some(HowToClose::Fin) => Close::Fin,
            Some(HowToClose::Reset) => Close::Reset,
        };
        Ok(asked)
    }
}

impl Common {
    fn plan(&self, target: &str, load: Load, time: Duration) -> Result<Asked, String> {
        let mut plan = Plan::new(resolve(target, &self.from)?, load);
        plan.from.clone_from(&self.from);
        plan.length = Length::Time(time);
        plan.connect_timeout = self.connect_timeout;
        plan.threads = self.threads;
        Ok(Asked { plan, json: self.output.json })
    }
}

/// The first address of a name, of the family of the sources where there are some.
fn resolve(target: &str, from: &[IpAddr]) -> Result<SocketAddr, String> {
    let mut addresses = target.to_socket_addrs().map_err(|error| format!("{target}: {error}"))?;
    let found = addresses.find(|address| from.first().is_none_or(|from| from.is_ipv4() == address.is_ipv4()));
    found.ok_or_else(|| format!("{target} has no address of the family of --from"))
}

/// The authority and the path of a URL.
fn url(text: &str) -> Result<(&str, &str), String> {
    if text.starts_with("https://") {
        return Err(
            "https is not spoken: measure the TCP under it with `bench tcp`, or http behind it".to_owned()
        );
    }
    let text = text.strip_prefix("http://").unwrap_or(text);
    let cut = text.find('/').unwrap_or(text.len());
    let (authority, path) = text.split_at(cut);
    if authority.is_empty() || text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '#') {
        return Err("write http://HOST[:PORT][/PATH], or HOST:PORT[/PATH]".to_owned());
    }
    Ok((authority, if path.is_empty() { "/" } else { path }))
}

fn has_port(authority: &str) -> bool {
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(url("http://example.net"), Ok(("example.net", "/")));
        assert_eq!(url("127.0.0.1:8080/a/b?c"), Ok(("127.0.0.1:8080", "/a/b?c")));
        assert_eq!(url("[::1]:80"), Ok(("[::1]:80", "/")));
        assert!(url("https://example.net").is_err_and(|reason| reason.contains("https")));
        assert!(url("http:///a").is_err() && url("h/a b").is_err() && url("h/\r\nX: y").is_err());
        assert!(has_port("[::1]:80") && has_port("h:1"));
        assert!(!has_port("[::1]") && !has_port("h") && !has_port("h:"));
    }
}
