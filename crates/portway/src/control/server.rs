//! The daemon's end of the control socket: a thread that turns lines into questions and answers into lines.
//!
//! Clients are served one at a time and each has two seconds to say its line: a client that hangs delays other
//! clients, never traffic. Bounded by construction: one client, [`MAX_REQUEST`] bytes.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::{MAX_REQUEST, Request, Response};

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Who asks, by the kernel's word: a user's name, or "uid N".
    pub by: String,
    /// Takes exactly one answer.
    pub answer: SyncSender<Response>,
}

/// The socket file; gone when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Opens the socket at `path`, mode 0600 (0660 and the group's where `group` is given), and serves it.
    /// A socket file that is there already is stale: the caller holds the state directory's lock. `ask` hands
    /// a question on and says whether anyone will answer it.
    ///
    /// # Errors
    /// The socket cannot be made, or the group does not exist.
    pub fn start(
        path: &Path,
        group: Option<&str>,
        ask: impl Fn(Asked) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Bound under a closed umask: between bind and chmod nobody else can connect.
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(umask);
        let listener = bound?;
        let server = Self { path: path.to_owned() };
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group_id(group)?))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        }
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    // A client that goes away mid-sentence is its own affair.
                    Ok(stream) => drop(serve(&stream, &ask)),
                    // Out of descriptors, most likely: wait rather than spin.
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The daemon is ending; a file that cannot be removed is reported by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

fn serve(stream: &UnixStream, ask: &impl Fn(Asked) -> bool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
    let response = match serde_json::from_str(&line) {
        Err(error) => Response::Refused(format!("not a request: {error}")),
        Ok(request) => {
            let (answer, answered) = sync_channel(1);
            let stopping = || Response::Refused("the daemon is stopping".to_owned());
            if ask(Asked { request, by: peer(stream), answer }) {
                answered.recv().unwrap_or_else(|_| stopping())
            } else {
                stopping()
            }
        }
    };
    let mut text = serde_json::to_vec(&response).map_err(io::Error::other)?;
    text.push(b'\n');
    (&*stream).write_all(&text)
}

/// The user at the other end (SO_PEERCRED, unix(7)), by the name in /etc/passwd where there is one.
fn peer(stream: &UnixStream) -> String {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(stream) else { return "unknown".to_owned() };
    let uid = credentials.uid.as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

/// The id of a group in /etc/group (group(5)).
fn group_id(name: &str) -> io::Result<u32> {
    let groups = fs::read_to_string("/etc/group")?;
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .next()
        .ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no group named {name} in /etc/group"))
        })
}
