//! Checks by a program: status 0 in time is good.
//!
//! The program runs without a shell, in a process group of its own, with `PORTWAY_ADDRESS`, `PORTWAY_PORT` and a plain
//! `PATH` for an environment, its input and output being nothing. The group is killed at the time limit, and what a
//! program leaves behind in it when it ends is killed too. Each is waited for by a thread, because starting and
//! reaping a process block; the number of threads is the bound. Deliberately absent: a process that leaves the group
//! by itself (`setsid`) is out of reach.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, write};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::fault::{Fault, Made};

/// Where programs are looked for, as a login shell of Debian would.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the verdict waits for a program beyond its time: one that cannot be killed (it waits for a disk) must not
/// hold it up.
const GRACE: Duration = Duration::from_millis(100);

/// Tells the thread that its check is wanted no longer.
struct Cancel(Arc<OwnedFd>);

impl Drop for Cancel {
    fn drop(&mut self) {
        // Its counter cannot be full: this is the only write.
        _ = write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// Runs the program of a check. Its `place` among those that run is free again once it is reaped, which may be after
/// the verdict.
pub(crate) async fn check(
    place: OwnedSemaphorePermit,
    words: &[String],
    address: SocketAddr,
    limit: Duration,
) -> Made {
    let cancel = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let cancel = Arc::new(cancel.map_err(|error| Fault::of("command", &error.into()))?);
    let guard = Cancel(Arc::clone(&cancel));
    let words = words.to_vec();
    let thread = spawn_blocking(move || {
        let made = run(&words, address, limit, &cancel);
        drop(place);
        made
    });
    let made = tokio::time::timeout(limit.saturating_add(GRACE), thread).await;
    drop(guard);
    match made {
        Ok(Ok(made)) => made,
        Ok(Err(_)) => Err(Fault::NotMade("command: its thread is gone".to_owned())),
        Err(_) => Err(late()),
    }
}

/// Runs the program to its end, the time limit or the cancellation, and leaves nothing behind.
fn run(words: &[String], address: SocketAddr, limit: Duration, cancel: &OwnedFd) -> Made {
    let deadline = Instant::now() + limit;
    let Some((program, arguments)) = words.split_first() else {
        return Err(Fault::Failed("no command".to_owned()));
    };
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("PORTWAY_ADDRESS", address.ip().to_string())
        .env("PORTWAY_PORT", address.port().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|error| Fault::of(program, &error))?;
    let ended = wait(&child, deadline, cancel);
    // Before the program is reaped, while its number, which is the group's, can be nobody else's.
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait();
    match ended {
        Ok(true) => judge(status),
        Ok(false) => Err(late()),
        Err(error) => Err(Fault::of("command", &error)),
    }
}

/// Waits for the end of the program; whether it came before the deadline and the cancellation. The program stays a
/// zombie.
fn wait(child: &Child, deadline: Instant, cancel: &OwnedFd) -> io::Result<bool> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(Errno::SRCH)?;
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let mut fds =
            [PollFd::new(&end, PollFlags::IN), PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn late() -> Fault {
    Fault::Failed("not ended in time".to_owned())
}

fn judge(status: io::Result<ExitStatus>) -> Made {
    let status = status.map_err(|error| Fault::of("command", &error))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok("ended with status 0".to_owned()),
        (Some(code), _) => Err(Fault::Failed(format!("ended with status {code}"))),
        (None, signal) => Err(Fault::Failed(format!("ended by signal {}", signal.unwrap_or_default()))),
    }
}
