//! What is done to a lane, one thing after the other, and to whom: the backends of its pool.

use std::thread;
use std::time::Duration;

use portway_lab::traffic::Server;
use portway_lab::{Namespace, Portway};

use crate::log::{Log, Trouble};

/// One backend of the pool, as an address of the server's host.
pub struct Backend {
    pub name: &'static str,
    address: String,
    servers: Option<[Server; 2]>,
    check: Option<Server>,
}

/// The port that serves, and the one that checks ask.
pub const PORT: u16 = 7000;
const CHECK: u16 = 7999;

impl Backend {
    /// A backend that is well.
    pub fn new(host: &Namespace, name: &'static str, address: &str) -> Self {
        host.ip(&format!("address add {address}/24 dev eth0"));
        let mut new = Self { name, address: address.to_owned(), servers: None, check: None };
        new.serve(host);
        new.answer(host);
        new
    }

    /// The backend in the file.
    pub fn table(&self, weight: u32) -> String {
        format!("{{ address = '{}:{PORT}', name = '{}', weight = {weight} }}", self.address, self.name)
    }

    fn serve(&mut self, host: &Namespace) {
        let on = format!("{}:{PORT}", self.address);
        self.servers = Some([Server::tcp_named(host, &on, self.name), Server::udp_echo(host, &on)]);
    }

    fn answer(&mut self, host: &Namespace) {
        let on = format!("{}:{CHECK}", self.address);
        self.check = Some(Server::tcp_sign(host, &on, "well"));
    }
}

/// The check of the pool: quick, and patient enough for a busy machine.
pub const CHECKED: &str = "check = { type = 'tcp', port = 7999, interval = '1s', interval-down = '100ms', timeout = '1s', rise = 1, fall = 2 }";

/// How long a daemon stays dead.
const DEAD: Duration = Duration::from_millis(300);

/// What there is to be done to.
pub struct Patient<'l> {
    pub portway: &'l mut Portway,
    pub host: &'l Namespace,
    pub log: &'l Log,
    pub backends: &'l mut [Backend],
}

impl Patient<'_> {
    /// A backend looks dead to its check, and serves on.
    pub fn ails(&mut self, nth: usize) {
        self.log.begins(Trouble::Moved);
        self.backends[nth].check = None;
        self.portway.until(self.backends[nth].name, "down");
        self.log.is_over(Trouble::Moved);
    }

    /// It answers again, and serves again if it did not.
    pub fn is_well(&mut self, nth: usize) {
        let backend = &mut self.backends[nth];
        if backend.servers.is_none() {
            backend.serve(self.host);
        }
        self.log.begins(Trouble::Moved);
        backend.answer(self.host);
        self.portway.until(self.backends[nth].name, "up");
        self.log.is_over(Trouble::Moved);
    }

    /// A backend dies: connections that it has go on (threads of this process serve them), new ones are refused until
    /// its check has noticed.
    pub fn dies(&mut self, nth: usize) {
        self.log.begins(Trouble::Dead);
        self.log.begins(Trouble::Moved);
        let backend = &mut self.backends[nth];
        (backend.servers, backend.check) = (None, None);
        self.portway.until(self.backends[nth].name, "down");
        self.log.is_over(Trouble::Moved);
        self.log.is_over(Trouble::Dead);
    }

    /// The daemon is killed, and another one takes over, with programs of its own in place of the old ones. A backend
    /// that is dead meanwhile may be met until the new daemon has asked it.
    pub fn is_replaced(&mut self) {
        self.log.begins(Trouble::Dead);
        self.log.begins(Trouble::Moved);
        self.portway.kill9();
        thread::sleep(DEAD);
        self.portway.restart();
        for backend in &*self.backends {
            self.portway.until(backend.name, if backend.check.is_some() { "up" } else { "down" });
        }
        self.log.is_over(Trouble::Moved);
        self.log.is_over(Trouble::Dead);
    }
}
