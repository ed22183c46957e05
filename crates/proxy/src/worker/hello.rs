//! Listening to a client before a backend is chosen, for rules that choose by the server name.

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{WATCH, Worker};
use crate::sni::{Heard, MOST};
use crate::token::Token;

impl Worker {
    /// Looks at what the client has sent so far, without taking it, and begins to connect when that says enough.
    pub(super) fn hear(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let Some(hello) = connection.history.as_mut().and_then(|history| history.hello.as_mut()) else {
            return;
        };
        let heard = match recv(&connection.client, &mut self.scratch[..MOST], RecvFlags::PEEK) {
            Ok((0, _)) => Heard::NoName,
            Ok((length, _)) => hello.hear(&self.scratch[..length]),
            Err(Errno::AGAIN | Errno::INTR) => Heard::More,
            Err(_) => return self.close(key, true),
        };
        match heard {
            Heard::Name(name) => self.heard(key, Some(name)),
            Heard::NoName => self.heard(key, None),
            // Nothing more will come.
            Heard::More if connection.up.ending => self.heard(key, None),
            Heard::More if !connection.client_watched => {
                connection.client_watched = true;
                let token = Token::Client(key, connection.generation).pack();
                if epoll::add(&self.context.epoll, &connection.client, token, WATCH).is_err() {
                    self.close(key, true);
                }
            }
            Heard::More => {}
        }
    }

    /// The client has said which name it wants, or will not.
    pub(super) fn heard(&mut self, key: u32, name: Option<Box<str>>) {
        if let Some(history) = &mut self.connections[key as usize].history {
            history.hello = None;
            history.name = name;
        }
        self.begin(key);
    }
}
