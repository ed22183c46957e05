//! The families of a rule's backends, as far as the file says them.
//!
//! Deliberately absent: the families of names, which are facts.

use crate::address::Family;
use crate::diagnostic::Span;
use crate::ruleset::BackendHost;

use super::backend::Written;

/// The families of a rule's backends.
pub struct Families {
    /// The first backend of each family, and where it stands.
    known: Vec<(Family, Span)>,
    /// Whether there are backends whose families a resolver will say.
    names: bool,
}

impl Families {
    /// The families of these backends.
    pub fn of(backends: &[Written<'_>]) -> Self {
        let mut families = Self { known: Vec::new(), names: false };
        for backend in backends {
            match backend.forward.host {
                BackendHost::Address(address) => {
                    let family = Family::of(address);
                    if !families.has(family) {
                        families.known.push((family, backend.config.address.inside()));
                    }
                }
                BackendHost::Name(_) | BackendHost::Service(_) => families.names = true,
            }
        }
        families.known.sort_by_key(|(family, _)| *family);
        families
    }

    /// The family of listeners that say none: the backends', where it is one, and IPv4 where all backends are names.
    pub fn listeners(&self) -> Option<Family> {
        match self.known.as_slice() {
            [] => self.names.then_some(Family::V4),
            [(family, _)] => Some(*family),
            _ => None,
        }
    }

    /// A backend of each family, IPv4 first, where there are both.
    pub fn both(&self) -> Option<&[(Family, Span); 2]> {
        self.known.as_slice().try_into().ok()
    }

    /// Whether a backend that is an address has this family.
    pub fn has(&self, family: Family) -> bool {
        self.known.iter().any(|(known, _)| *known == family)
    }

    /// Whether a backend may have this family; with no readable backend, every family may be.
    pub fn may_have(&self, family: Family) -> bool {
        self.names || self.known.is_empty() || self.has(family)
    }

    /// The families of the backends that are addresses.
    pub fn known(&self) -> impl Iterator<Item = &(Family, Span)> {
        self.known.iter()
    }
}
