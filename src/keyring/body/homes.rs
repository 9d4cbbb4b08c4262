//! Which data key a keyspace has at which location: a store that goes to and fro between two
//! mount points has one for each, and not a new one each time. `docs/FORMAT.md` section 6.
//!
//! A key is taken again only where it was active before, so that a copy, which is at a location
//! of its own, still never goes on under a key of the original.

use super::Keyspace;
use crate::keyring::Location;
use crate::tags::Unknown;

/// Tag of the list.
pub(super) const HOMES: u16 = 1;
/// Locations of the list; the one left longest ago makes room.
const HOMES_MAX: usize = 4;
const HOME_LEN: usize = 32;

/// Locations, each with the id of the data key that is active there; the present one first.
pub(crate) struct Homes(Vec<([u8; 16], [u8; 16])>);

impl Homes {
    /// The data key that was active at a location, if that names one directory alone.
    pub(crate) fn key_at(&self, location: &Location) -> Option<[u8; 16]> {
        let mut homes = self.0.iter().filter(|_| location.is_certain);
        homes.find(|(at, _)| *at == location.id).map(|(_, key)| *key)
    }
}

impl Keyspace {
    /// The list, where the store was last written at `present`. It says nothing of other
    /// locations when another key than its first is active: there was a rotation since, behind
    /// which no older key may be taken again.
    pub(crate) fn homes(&self, present: [u8; 16]) -> Homes {
        let now = (present, self.active);
        let listed = self.tags.bytes(HOMES).unwrap_or_default().chunks_exact(HOME_LEN);
        let (mut listed, mut homes) = (listed.peekable(), Vec::new());
        if listed.peek() == Some(&&[now.0, now.1].concat()[..]) {
            for home in listed {
                let (at, key) = home.split_at(HOME_LEN / 2);
                // OK because each is half of an entry.
                homes.extend(at.try_into().ok().zip(key.try_into().ok()));
            }
        } else {
            homes.push(now);
        }
        Homes(homes)
    }

    /// Notes that the active data key is that of `location`.
    pub(crate) fn settle(&mut self, Homes(mut homes): Homes, location: &Location) {
        if !location.is_certain {
            self.tags.set_bytes(HOMES, Unknown::Keep, None);
            return;
        }
        homes.retain(|(at, _)| *at != location.id);
        homes.insert(0, (location.id, self.active));
        homes.truncate(HOMES_MAX);
        let bytes = homes.iter().flat_map(|(at, key)| [*at, *key].concat()).collect();
        self.tags.set_bytes(HOMES, Unknown::Keep, Some(bytes));
    }

    pub(super) fn check_homes(&self) -> Result<(), &'static str> {
        let len = self.tags.bytes(HOMES).map_or(HOME_LEN, <[u8]>::len);
        if len.is_multiple_of(HOME_LEN) && (1..=HOMES_MAX).contains(&(len / HOME_LEN)) {
            return Ok(());
        }
        Err("a keyspace's list of locations is invalid")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(number: u8) -> Location {
        Location { id: [number; 16], is_certain: true, directory: None }
    }

    #[test]
    fn a_list_of_another_length_is_refused() {
        let mut keyspace = Keyspace::default();
        keyspace.check_homes().unwrap();
        for len in 0..=(HOMES_MAX + 1) * HOME_LEN {
            keyspace.tags.set_bytes(HOMES, Unknown::Keep, Some(vec![1; len]));
            let good = len.is_multiple_of(HOME_LEN) && len != 0 && len <= HOMES_MAX * HOME_LEN;
            assert_eq!(keyspace.check_homes().is_ok(), good, "{len}");
        }
    }

    #[test]
    fn only_a_list_of_now_is_believed_and_only_where_a_place_is_certain() {
        let mut keyspace = Keyspace { active: [10; 16], ..Keyspace::default() };
        let moved = |keyspace: &mut Keyspace, from: u8, to: &Location, key: u8| {
            let homes = keyspace.homes([from; 16]);
            let known = homes.key_at(to);
            keyspace.active = [key; 16];
            keyspace.settle(homes, to);
            keyspace.check_homes().unwrap();
            known
        };
        assert_eq!(moved(&mut keyspace, 1, &at(2), 20), None);
        assert_eq!(moved(&mut keyspace, 2, &at(1), 10), Some([10; 16]));
        assert_eq!(keyspace.homes([1; 16]).key_at(&at(2)), Some([20; 16]));
        // A place that a copy may share.
        let doubtful = Location { is_certain: false, ..at(2) };
        assert_eq!(keyspace.homes([1; 16]).key_at(&doubtful), None);
        // Another location, or another key, than the list begins with.
        assert_eq!(keyspace.homes([3; 16]).key_at(&at(2)), None);
        keyspace.active = [11; 16];
        assert_eq!(keyspace.homes([1; 16]).key_at(&at(2)), None);
        assert_eq!(moved(&mut keyspace, 1, &doubtful, 20), None);
        assert!(!keyspace.tags.has(HOMES));
    }
}
