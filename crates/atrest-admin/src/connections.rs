//! Which connections may be open: a newcomer is always heard.
//!
//! Whoever holds connections and does nothing with them must not keep `REVOKE` and
//! `/livez` out, so a full server closes a connection for each new one: the oldest of
//! the peer that has most.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The connections that are open. Clones are the same.
#[derive(Clone)]
pub(crate) struct Connections {
    open: Arc<Mutex<Open>>,
    most: usize,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By age: the peer, and what closes the connection when it is dropped.
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// A connection's place, until it is dropped.
pub(crate) struct Place {
    connections: Connections,
    number: u64,
    /// Ready once the place is somebody else's.
    pub(crate) taken: oneshot::Receiver<()>,
}

impl Connections {
    /// At most `most` at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// A place for a connection of `peer`, another's if none is free.
    pub(crate) fn admit(&self, peer: IpAddr) -> Place {
        let (close, taken) = oneshot::channel();
        let mut open = self.lock();
        while open.all.len() >= self.most {
            let Some(number) = open.oldest_of_the_greediest() else { break };
            open.all.remove(&number);
        }
        let number = open.next;
        open.next += 1;
        open.all.insert(number, (peer, close));
        Place { connections: self.clone(), number, taken }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change is one insertion or removal.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn oldest_of_the_greediest(&self) -> Option<u64> {
        let mut shares = HashMap::<IpAddr, usize>::new();
        for (peer, _) in self.all.values() {
            *shares.entry(*peer).or_default() += 1;
        }
        let most = shares.values().copied().max()?;
        let greedy = self.all.iter().find(|(_, (peer, _))| shares.get(peer) == Some(&most));
        greedy.map(|(number, _)| *number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_greediest_makes_room() {
        let connections = Connections::new(3);
        let peer = |last: u8| IpAddr::from([127, 0, 0, last]);
        let is_taken =
            |place: &mut Place| place.taken.try_recv() != Err(oneshot::error::TryRecvError::Empty);
        let mut other = connections.admit(peer(1));
        let mut first = connections.admit(peer(2));
        let mut second = connections.admit(peer(2));
        let mut third = connections.admit(peer(2));
        assert!(is_taken(&mut first), "the oldest of two");
        assert!([&mut other, &mut second, &mut third].into_iter().all(|place| !is_taken(place)));
        drop(second);
        let mut fourth = connections.admit(peer(3));
        assert!([&mut other, &mut third, &mut fourth].into_iter().all(|place| !is_taken(place)));
        assert_eq!(connections.lock().all.len(), 3);
        drop((other, third, fourth, first));
        assert!(connections.lock().all.is_empty());
    }
}
