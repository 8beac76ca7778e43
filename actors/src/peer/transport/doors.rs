//! How many connections at the peer port may be strangers at a time: over all, and from one address, so that one host cannot keep the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::limits::{HANDSHAKES_MAX, HANDSHAKES_OF_ONE_MAX};

#[derive(Default)]
pub struct Doors {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection that has not said who it is; its place is free again when this is dropped.
pub struct Door {
    doors: Arc<Doors>,
    from: IpAddr,
}

impl Doors {
    /// A place for a connection, or the reason why there is none.
    pub fn open(self: &Arc<Self>, from: IpAddr) -> Result<Door, String> {
        let mut open = self.open.lock();
        if open.values().sum::<usize>() >= HANDSHAKES_MAX {
            return Err(format!("{HANDSHAKES_MAX} connections have not said yet who they are: that is the limit"));
        }
        let its = open.entry(from).or_default();
        if *its >= HANDSHAKES_OF_ONE_MAX {
            return Err(format!("{HANDSHAKES_OF_ONE_MAX} connections of this address have not said yet who they are: that is the limit"));
        }
        *its += 1;
        Ok(Door { doors: self.clone(), from })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut open = self.doors.open.lock();
        if let Some(its) = open.get_mut(&self.from) {
            *its -= 1;
            if *its == 0 {
                open.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_gets_its_own_back() {
        let doors = Arc::new(Doors::default());
        let from = |host: u8| IpAddr::from([10, 0, 0, host]);
        let mut held: Vec<Door> = (0..HANDSHAKES_OF_ONE_MAX).map(|_| doors.open(from(1)).expect("room")).collect();
        assert!(doors.open(from(1)).is_err_and(|reason| reason.contains("of this address")));
        drop(held.pop());
        held.push(doors.open(from(1)).expect("room again"));
        for host in 2.. {
            match doors.open(from(host)) {
                Ok(door) => held.push(door),
                Err(reason) => {
                    assert!(reason.starts_with(&HANDSHAKES_MAX.to_string()), "{reason}");
                    break;
                }
            }
        }
        assert_eq!(held.len(), HANDSHAKES_MAX);
        drop(held);
        assert!(doors.open.lock().is_empty());
    }
}
