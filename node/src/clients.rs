//! Limits for each client address (Q7), until keys tell clients apart: connections, queries at once, queries and ingested bytes a second.
//!
//! The table is bounded: an address that has nothing open and whose buckets are full is forgotten, which loses nothing, and when the table is full of
//! others, newcomers share one entry.

mod bucket;
mod network;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use dashmap::DashMap;
use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_storage::clock::Clock;

use bucket::Bucket;
pub use network::Network;

use crate::config;
use crate::limits::{CLIENTS_TRACKED_MAX, FORWARDED_HOPS_MAX, RETRY_AFTER_MS};
use crate::metrics::Counter;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

tokio::task_local! {
    /// Who asks. Set once around each request, because limits apply far below the handlers, in code that serves several kinds of requests.
    static ASKING: Arc<Client>;
}

/// Every client address that has something open or asked lately.
pub struct Clients {
    limits: ClientLimits,
    trusted_proxies: Vec<Network>,
    clock: Arc<dyn Clock>,
    table: DashMap<IpAddr, Arc<Client>>,
    /// Of addresses that the table has no room for, and of requests that came over no connection.
    others: Arc<Client>,
    pub refused: Refusals,
}

/// What was refused, by limit.
#[derive(Default)]
pub struct Refusals {
    pub connections: Counter,
    pub queries: Counter,
    pub ingest: Counter,
}

/// For each address; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    pub connections_max: usize,
    pub queries_max: usize,
    pub queries_per_s: u32,
    pub ingest_bytes_per_s: u64,
}

/// One address.
pub struct Client {
    limits: ClientLimits,
    connections: AtomicUsize,
    queries: AtomicUsize,
    query_rate: Mutex<Bucket>,
    ingest_rate: Mutex<Bucket>,
}

/// A place of a client, given back on drop.
pub struct Place {
    client: Arc<Client>,
    of: fn(&Client) -> &AtomicUsize,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.of)(&self.client).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    pub fn new(config: &config::Clients, clock: Arc<dyn Clock>) -> Self {
        let limits = ClientLimits {
            connections_max: config.connections_max,
            queries_max: config.queries_max,
            queries_per_s: config.query_rate,
            ingest_bytes_per_s: config.ingest_rate.0,
        };
        // Checked at boot.
        let trusted_proxies = config.trusted_proxies.iter().filter_map(|text| text.parse().ok()).collect();
        Self { others: Arc::new(Client::new(limits)), limits, trusted_proxies, clock, table: DashMap::new(), refused: Refusals::default() }
    }

    /// Addresses in the table.
    pub fn tracked(&self) -> usize {
        self.table.len()
    }

    /// A place for a connection; a trusted proxy has as many as there are.
    pub fn connect(&self, peer: IpAddr) -> Option<Place> {
        let limits = ClientLimits { connections_max: usize::MAX, ..self.limits };
        let client = if self.is_trusted(peer) { Arc::new(Client::new(limits)) } else { self.entry(peer) };
        let max = client.limits.connections_max;
        let place = Place::take(&client, |c| &c.connections, max);
        if place.is_none() {
            self.refused.connections.add(1);
        }
        place
    }

    /// Who sent a request: the peer, or whom trusted proxies name.
    pub fn of(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Arc<Client> {
        peer.map_or_else(|| self.others.clone(), |peer| self.entry(self.origin(peer, headers)))
    }

    /// Whom the headers name, as far as the chain of proxies is trusted, read from the near end.
    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut origin = peer;
        if !self.is_trusted(peer) {
            return origin;
        }
        let values: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
        for hop in values.iter().rev().flat_map(|v| v.rsplit(',')).take(FORWARDED_HOPS_MAX) {
            match network::address(hop) {
                Some(address) => origin = address,
                None => return origin,
            }
            if !self.is_trusted(origin) {
                return origin;
            }
        }
        origin
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|n| n.contains(address))
    }

    fn entry(&self, address: IpAddr) -> Arc<Client> {
        let key = key_of(address);
        if let Some(client) = self.table.get(&key) {
            return client.clone();
        }
        if self.table.len() >= CLIENTS_TRACKED_MAX {
            return self.others.clone();
        }
        self.table.entry(key).or_insert_with(|| Arc::new(Client::new(self.limits))).clone()
    }

    /// Forgets the addresses that would be the same if they were new.
    pub fn forget_idle(&self) {
        let now = self.clock.monotonic();
        // Nobody takes hold of an entry meanwhile: that needs the lock that is held here.
        self.table.retain(|_, client| Arc::strong_count(client) > 1 || !client.is_idle(now));
    }

    /// Runs one request in the name of a client.
    pub async fn asking<T>(client: Arc<Client>, request: impl Future<Output = T>) -> T {
        ASKING.scope(client, request).await
    }

    fn asking_now(&self) -> Arc<Client> {
        ASKING.try_with(Arc::clone).unwrap_or_else(|_| self.others.clone())
    }

    /// A query of the client that asks.
    ///
    /// # Errors
    /// 429 with the limit that was hit.
    pub fn admit_query(&self) -> Result<Place, Problem> {
        let client = self.asking_now();
        let admitted = client.admit_query(self.clock.monotonic());
        if admitted.is_err() {
            self.refused.queries.add(1);
        }
        admitted
    }

    /// A body of the client that asks; `claimed_bytes` is its length as far as it is known before.
    ///
    /// # Errors
    /// 429 with the limit that was hit.
    pub fn admit_body(&self, claimed_bytes: u64) -> Result<(), Problem> {
        let limit = self.limits.ingest_bytes_per_s;
        let admitted = self.asking_now().ingest_rate.lock().spend(self.clock.monotonic(), claimed_bytes);
        admitted.map_err(|wait| {
            self.refused.ingest.add(1);
            too_fast(format!("this client sends over {limit} bytes a second"), limit, wait)
        })
    }

    /// More bytes of that body than were claimed: unpacked, or of unknown length.
    pub fn charge_body(&self, bytes: u64) {
        self.asking_now().ingest_rate.lock().charge(self.clock.monotonic(), bytes);
    }
}

fn too_fast(detail: String, limit: u64, wait: Duration) -> Problem {
    Problem::new(ErrorCode::RateLimited, detail).limit(limit).retry_after_ms((wait.as_millis() as u64).max(1))
}

/// An address block is one client: whoever has an IPv6 address has 2^64 of them.
fn key_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

impl Client {
    fn new(limits: ClientLimits) -> Self {
        Self {
            limits,
            connections: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            query_rate: Mutex::new(Bucket::new(u64::from(limits.queries_per_s))),
            ingest_rate: Mutex::new(Bucket::new(limits.ingest_bytes_per_s)),
        }
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.query_rate.lock().is_full(now) && self.ingest_rate.lock().is_full(now)
    }

    fn admit_query(self: &Arc<Self>, now: Duration) -> Result<Place, Problem> {
        let max = self.limits.queries_max;
        let place = Place::take(self, |c| &c.queries, max).ok_or_else(|| {
            Problem::new(ErrorCode::RateLimited, format!("{max} queries of this client run or wait already"))
                .limit(max as u64)
                .retry_after_ms(RETRY_AFTER_MS)
        })?;
        let limit = self.limits.queries_per_s;
        self.query_rate
            .lock()
            .spend(now, 1)
            .map_err(|wait| too_fast(format!("this client asks over {limit} queries a second"), u64::from(limit), wait))?;
        Ok(place)
    }
}

impl Place {
    fn take(client: &Arc<Client>, of: fn(&Client) -> &AtomicUsize, max: usize) -> Option<Self> {
        let max = if max == 0 { usize::MAX } else { max };
        let taken = of(client).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1));
        taken.ok().map(|_| Self { client: client.clone(), of })
    }
}

#[cfg(test)]
mod tests;
