//! What goes wrong, when and where: drawn from the seed, by the plan's weights.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tallymesh_actors::raft::runtime::scoped;
use tallymesh_actors::replicator::Replicator;
use tallymesh_storage::disk::{Disk, SimDisk};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::net::Weather;
use super::node::{End, LOG_DIR, Node};
use super::operator::{Fleet, any_cut};
use super::random::Random;
use super::world::{OUTSIDE, World};

/// Faults that something in the run asks for, at the very moment.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    PowerCut(u64),
}

struct Faults {
    world: Arc<World>,
    fleet: Arc<Fleet>,
    random: Random,
}

/// Runs until the time for faults is over. Everything is mended then, but for nodes that are down, which come back.
pub async fn run(world: Arc<World>, fleet: Arc<Fleet>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let until = Instant::now() + world.plan.faults_for;
    let mut faults = Faults { random: Random::new(world.seed, "faults"), world, fleet };
    let (from, to) = faults.world.plan.fault_gap_ms;
    loop {
        let pause = faults.random.millis(from, to);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => break,
            order = orders.recv() => match order {
                Some(Order::PowerCut(id)) => faults.cut_now(id).await,
                None => break,
            },
            () = sleep(pause) => faults.one().await,
        }
    }
    faults.mend().await;
}

impl Faults {
    async fn one(&mut self) {
        let weights = self.world.plan.weights.clone();
        let mut at = self.random.range(0, weights.sum());
        if weights.sum() == 0 {
            return;
        }
        let mut falls = |weight: u64| {
            let hit = at < weight;
            at = if hit { u64::MAX } else { at - weight.min(at) };
            hit
        };
        let nodes = self.world.all_nodes();
        let Some(node) = self.random.pick(&nodes).cloned() else { return };
        if falls(weights.power_cut) {
            self.power_cut(&node).await;
        } else if falls(weights.power_cut_of_all) {
            self.power_cut_of_all(&nodes).await;
        } else if falls(weights.kill) {
            self.kill(&node).await;
        } else if falls(weights.stop) {
            self.stop(&node);
        } else if falls(weights.isolate) {
            let others = nodes.iter().filter(|other| other.id != node.id);
            self.cut(others.flat_map(|other| [(node.id, other.id), (other.id, node.id)]).collect());
        } else if falls(weights.one_way) {
            let outward = self.random.per_mille(500);
            let others = nodes.iter().filter(|other| other.id != node.id);
            let pairs: Vec<_> = others.map(|other| if outward { (node.id, other.id) } else { (other.id, node.id) }).collect();
            let kept = self.random.range(1, pairs.len() as u64 + 1) as usize;
            self.cut(pairs.into_iter().take(kept).collect());
        } else if falls(weights.disk_full) {
            self.disk_full(&node);
        } else if falls(weights.failed_sync) {
            self.world.note(format_args!("n{}: the next sync fails", node.id));
            self.world.judge.lock().disks.fail(node.id);
            node.disk.fail_next_sync();
        } else if falls(weights.slow_disk) {
            self.slow_disk(&node);
        } else if falls(weights.flip) {
            self.flip(&node).await;
        } else if falls(weights.clock) {
            let by_ms = self.random.range(0, 240_000) as i64 - 120_000;
            self.world.note(format_args!("n{}: the clock jumps by {by_ms} ms", node.id));
            node.clock.jump(by_ms);
        } else if falls(weights.snapshot) {
            self.snapshots(&node);
        } else if falls(weights.elect) {
            self.elect(&node).await;
        } else if falls(weights.replace) {
            self.fleet.replace(&self.world, node.id);
        } else if falls(weights.wipe) {
            self.wipe(&node).await;
        } else if falls(weights.rough) {
            self.rough();
        }
    }

    fn down_for(&mut self) -> Duration {
        let far = if self.random.per_mille(200) { 6_000 } else { 1_500 };
        self.random.millis(20, far)
    }

    async fn end(&mut self, node: &Arc<Node>, how: End) {
        self.world.note(format_args!("n{}: {how:?}", node.id));
        let back = self.down_for();
        node.end(&self.world, how).await;
        self.fleet.comes_back(node.id, back);
    }

    /// The power goes at one of the next changes to the disk.
    async fn power_cut(&mut self, node: &Arc<Node>) {
        if node.running().is_none() {
            return;
        }
        let changes = self.random.range(1, 16);
        self.world.judge.lock().disks.fail(node.id);
        node.disk.fail_after(changes);
        let until = Instant::now() + Duration::from_millis(300);
        while !node.disk.is_cut() && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        let how = any_cut(&mut self.random);
        self.end(node, End::Power(how)).await;
    }

    async fn cut_now(&mut self, id: u64) {
        if let Some(node) = self.world.node(id).filter(|node| node.running().is_some()) {
            let how = any_cut(&mut self.random);
            self.end(&node, End::Power(how)).await;
        }
    }

    async fn power_cut_of_all(&mut self, nodes: &[Arc<Node>]) {
        let until = Instant::now() + self.random.millis(1, 30);
        for node in nodes {
            self.world.judge.lock().disks.fail(node.id);
            node.disk.fail_after(self.random.range(1, 8));
        }
        tokio::time::sleep_until(until).await;
        for node in nodes {
            if node.running().is_some() {
                let how = any_cut(&mut self.random);
                self.end(node, End::Power(how)).await;
            }
        }
    }

    async fn kill(&mut self, node: &Arc<Node>) {
        if node.running().is_some() {
            self.end(node, End::Kill).await;
        }
    }

    /// The process is stopped and goes on later, knowing nothing of the time between.
    fn stop(&mut self, node: &Arc<Node>) {
        let wait = self.random.millis(100, 6_000);
        self.world.note(format_args!("n{}: stopped for {wait:?}", node.id));
        self.world.hold(node.id);
        let (world, id) = (self.world.clone(), node.id);
        self.world.spawn(OUTSIDE, async move {
            sleep(wait).await;
            world.note(format_args!("n{id}: goes on"));
            world.go_on(id);
        });
    }

    fn cut(&mut self, pairs: Vec<(u64, u64)>) {
        let wait = self.random.millis(100, 5_000);
        self.world.note(format_args!("cut {pairs:?} for {wait:?}"));
        let (world, number) = (self.world.clone(), self.world.net.cut(pairs));
        self.world.spawn(OUTSIDE, async move {
            sleep(wait).await;
            world.net.mend(number);
        });
    }

    fn disk_full(&mut self, node: &Arc<Node>) {
        let used: usize = node.disk.files().values().map(Vec::len).sum();
        let room = self.random.range(0, 6_000);
        self.world.note(format_args!("n{}: {room} bytes of disk are left", node.id));
        self.world.judge.lock().disks.fail(node.id);
        node.disk.set_capacity(Some(used as u64 + room));
    }

    fn slow_disk(&mut self, node: &Arc<Node>) {
        let (slower, wait) = (self.random.range(10_000, 700_000), self.random.millis(200, 4_000));
        self.world.note(format_args!("n{}: syncs take {slower} us more for {wait:?}", node.id));
        node.slower_us.store(slower, Ordering::Relaxed);
        let (world, node) = (self.world.clone(), node.clone());
        world.spawn(OUTSIDE, async move {
            sleep(wait).await;
            node.slower_us.store(0, Ordering::Relaxed);
        });
    }

    /// A bit turns in a file that was written long ago, while the process is down. The newest log file is spared: its last record cannot be told from a torn one.
    async fn flip(&mut self, node: &Arc<Node>) {
        if node.running().is_none() || !self.fleet.doubt(node.id) {
            return;
        }
        self.end(node, End::Kill).await;
        let files = node.disk.files();
        let newest = files.keys().rfind(|path| path.starts_with(LOG_DIR)).cloned();
        let others: Vec<_> = files.iter().filter(|(path, bytes)| Some(*path) != newest.as_ref() && !bytes.is_empty()).collect();
        let Some((path, bytes)) = self.random.pick(&others) else { return };
        let (offset, bit) = (self.random.range(0, bytes.len() as u64), self.random.range(0, 8) as u8);
        self.world.note(format_args!("n{}: bit {bit} of byte {offset} turns in {}", node.id, path.display()));
        self.world.judge.lock().disks.flip(node.id);
        let _ = node.disk.flip_bit(path, offset, bit);
    }

    fn snapshots(&mut self, node: &Arc<Node>) {
        if self.world.is_held(node.id) {
            return;
        }
        let Some(running) = node.running() else { return };
        for replica in running.replicas.values() {
            if self.random.per_mille(700) {
                self.world.note(format_args!("n{} is asked for a snapshot", node.id));
                replica.raft.trigger_snapshot();
            }
        }
    }

    async fn elect(&mut self, node: &Arc<Node>) {
        if self.world.is_held(node.id) {
            return;
        }
        let Some(running) = node.running() else { return };
        let replicas: Vec<_> = running.replicas.values().collect();
        if let Some(replica) = self.random.pick(&replicas) {
            self.world.note(format_args!("n{} stands for election", node.id));
            let _ = scoped(node.id, replica.raft.raft().trigger().elect()).await;
        }
    }

    /// The disk is lost; a new node takes the place of the old one.
    async fn wipe(&mut self, node: &Arc<Node>) {
        if self.fleet.replace(&self.world, node.id).is_none() {
            return;
        }
        self.world.note(format_args!("n{} loses its disk", node.id));
        node.end(&self.world, End::Kill).await;
        self.fleet.forget(node.id);
        let disk: SimDisk = node.disk.clone();
        for path in disk.files().keys() {
            let _ = disk.remove(path);
        }
    }

    fn rough(&mut self) {
        let weather = Weather {
            dropped: self.random.range(20, 400),
            doubled: self.random.range(0, 200),
            delay_us: (200, self.random.range(5_000, 400_000)),
        };
        let wait = self.random.millis(500, 4_000);
        self.world.note(format_args!("{weather:?} for {wait:?}"));
        self.world.net.set_weather(weather);
        let world = self.world.clone();
        self.world.spawn(OUTSIDE, async move {
            sleep(wait).await;
            let plan = &world.plan;
            world.net.set_weather(Weather { dropped: plan.dropped, doubled: plan.doubled, delay_us: plan.delay_us });
        });
    }

    async fn mend(&mut self) {
        self.world.note(format_args!("the faults are over"));
        self.world.is_healing.store(true, Ordering::Relaxed);
        self.world.net.mend_all();
        for node in self.world.all_nodes() {
            node.slower_us.store(0, Ordering::Relaxed);
            self.world.go_on(node.id);
            if node.disk.is_cut() && node.running().is_some() {
                let how = any_cut(&mut self.random);
                self.end(&node, End::Power(how)).await;
            }
            node.disk.set_capacity(None);
        }
    }
}
