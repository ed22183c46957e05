//! Connections and datagrams of checks.
//!
//! Deliberately absent: what is said ([`portway_core::check`]), TLS ([`crate::tls`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use portway_core::check::{Conversation, End, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use crate::fault::{Fault, Made};

/// How much is read at a time.
const READ: usize = 8 * 1024;
/// The longest datagram that is looked at whole.
const DATAGRAM: usize = Conversation::PIECE;

/// Time was up during a step.
pub(crate) fn late(step: &str) -> Fault {
    Fault::Failed(format!("{step}: no answer in time"))
}

/// Connects to `address`, from `source` where given.
pub(crate) async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    deadline: Instant,
) -> Result<TcpStream, Fault> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(|error| Fault::of("socket", &error))?;
    if let Some(source) = source {
        share_ports(&socket);
        let source = local(source, address)?;
        let bound = socket.bind(source);
        bound.map_err(|error| Fault::of(&format!("source {}", source.ip()), &error))?;
    }
    // What is said is short, and said at once.
    _ = socket.set_nodelay(true);
    match timeout_at(deadline, socket.connect(address)).await {
        Ok(connected) => connected.map_err(|error| Fault::of("connect", &error)),
        Err(_) => Err(late("connect")),
    }
}

/// `source` as an address to bind to, when it can reach `address`.
fn local(source: IpAddr, address: SocketAddr) -> Result<SocketAddr, Fault> {
    if source.is_ipv4() != address.is_ipv4() {
        return Err(Fault::Failed(format!("source {source}: not of the family of {address}")));
    }
    Ok(SocketAddr::new(source, 0))
}

/// Has connect() pick the port, which may then be shared among destinations; bind() would take one of its own. Without
/// it, which no kernel since 4.2 is, there are only fewer ports.
fn share_ports(socket: &impl AsFd) {
    _ = setsockopt(socket, sockopt::IpBindAddressNoPort, &true);
}

/// Holds a conversation to its verdict.
pub(crate) async fn converse<S>(mut stream: S, mut conversation: Conversation, deadline: Instant) -> Made
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; READ];
    loop {
        match conversation.step() {
            Step::Send(bytes) => {
                let sent = timeout_at(deadline, async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                });
                match sent.await {
                    Ok(sent) => sent.map_err(|error| Fault::of("send", &error))?,
                    Err(_) => return Err(late("send")),
                }
            }
            Step::Wait => match timeout_at(deadline, stream.read(&mut buffer)).await {
                Ok(Ok(0)) => conversation.end(End::Closed),
                Ok(Ok(count)) => conversation.feed(&buffer[..count]),
                // TLS without a farewell: the end all the same, and the protocol says whether it came too early.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    conversation.end(End::Closed)
                }
                Ok(Err(error)) => return Err(Fault::of("receive", &error)),
                Err(_) => conversation.end(End::TimeUp),
            },
            Step::Good(words) => {
                close(stream, conversation.farewell(), deadline).await;
                return Ok(words);
            }
            Step::Bad(words) => return Err(Fault::Failed(words)),
        }
    }
}

/// Says farewell and closes; whether that succeeds changes nothing.
pub(crate) async fn close<S: AsyncWrite + Unpin>(mut stream: S, farewell: &[u8], deadline: Instant) {
    _ = timeout_at(deadline, async {
        stream.write_all(farewell).await?;
        stream.shutdown().await
    })
    .await;
}

/// Holds a conversation over UDP.
pub(crate) async fn datagrams(
    address: SocketAddr,
    source: Option<IpAddr>,
    mut conversation: Conversation,
    deadline: Instant,
) -> Made {
    let source = source.unwrap_or(match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let socket = UdpSocket::bind(local(source, address)?).await;
    let socket = socket.map_err(|error| Fault::of(&format!("source {source}"), &error))?;
    socket.connect(address).await.map_err(|error| Fault::of("connect", &error))?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match conversation.step() {
            Step::Send(bytes) => {
                _ = socket.send(&bytes).await.map_err(|error| Fault::of("send", &error))?;
            }
            Step::Wait => match timeout_at(deadline, socket.recv(&mut buffer)).await {
                Ok(Ok(count)) => conversation.feed(&buffer[..count]),
                // An ICMP error, as "Connection refused".
                Ok(Err(error)) => return Err(Fault::of("receive", &error)),
                Err(_) => conversation.end(End::TimeUp),
            },
            Step::Good(words) => return Ok(words),
            Step::Bad(words) => return Err(Fault::Failed(words)),
        }
    }
}
