//! `tallymesh demo --nodes N`: N processes that are one cluster, traffic over all of them, and an eye on who is there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use tallymesh_storage::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::super::client::sender::Sender;
use super::super::client::{CliError, Client, ServerArgs};
use super::super::output::grouped;
use super::nodes::{Nodes, how};
use super::plan::Plan;
use super::screen::{Look, Screen, Traffic, banner};
use super::traffic::{Sent, backfill, live};
use super::{DemoArgs, HTTP, RETRY_FOR};
use crate::boot::interrupted;
use crate::traffic::demo::definitions::definitions;

/// The nodes found a cluster and every shard has a leader within this time.
const READY_TIME_MAX: Duration = Duration::from_secs(90);
const PROBE_EVERY: Duration = Duration::from_millis(200);
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// With `--restart` a node is started again after this time: long enough to see the others go on without it.
const RESTART_AFTER: Duration = Duration::from_secs(3);
/// What became of acks is told this long after a node went away.
const TELL_AFTER: Duration = Duration::from_secs(6);
/// The rate is of this long.
const RATE_OVER: Duration = Duration::from_secs(5);

pub async fn run(args: &DemoArgs) -> Result<(), CliError> {
    let plan = Plan::make(&args.data_dir(), args.nodes, args.http.as_deref().unwrap_or(HTTP))?;
    plan.write(&definitions())?;
    let mut nodes = Nodes::start(plan)?;
    let mut screen = Screen::new();
    let result = tokio::select! {
        result = show(args, &mut nodes, &mut screen) => result,
        stopped = interrupted() => stopped.map_err(|e| CliError::Failed(format!("cannot listen for signals: {e}"))),
    };
    screen.clear();
    eprintln!("\nStopping {} nodes: finishing what was accepted ...", args.nodes);
    let killed = nodes.stop().await;
    if !killed.is_empty() {
        eprintln!("{} did not end in time and had to be killed.", killed.join(", "));
    }
    result?;
    eprintln!("Stopped. Nothing is lost; the next `tallymesh demo --nodes {}` goes on and fills the gap.", args.nodes);
    Ok(())
}

/// What every part of the demo looks at.
struct Fleet {
    names: Vec<String>,
    clients: Arc<[Client]>,
    /// What the last probe of each node said.
    ready: Arc<Mutex<Vec<bool>>>,
    /// Nodes that have been ready since their process began.
    settled: RefCell<Vec<bool>>,
    /// One task for each node; they end with this.
    _probes: JoinSet<()>,
}

impl Fleet {
    fn of(plan: &Plan) -> Result<Self, CliError> {
        let client = |node: &super::plan::NodePlan| Client::new(&ServerArgs { url: super::reachable(&format!("http://{}", node.http)) });
        let clients: Arc<[Client]> = plan.nodes.iter().map(client).collect::<Result<Vec<_>, _>>()?.into();
        let ready = Arc::new(Mutex::new(vec![false; clients.len()]));
        let settled = RefCell::new(vec![false; clients.len()]);
        let mut probes = JoinSet::new();
        for (at, client) in clients.iter().cloned().enumerate() {
            probes.spawn(probe(client, at, ready.clone()));
        }
        Ok(Self { names: plan.nodes.iter().map(|node| node.name.clone()).collect(), clients, ready, settled, _probes: probes })
    }

    fn looks(&self, nodes: &Nodes) -> Vec<Look> {
        let (ready, mut settled) = (self.ready.lock(), self.settled.borrow_mut());
        let pids = nodes.pids();
        let look = |at: usize| match (ready[at], pids[at]) {
            // Also when somebody else has started it again.
            (true, _) => Look::Ready,
            (false, None) => Look::Gone,
            (false, Some(_)) if settled[at] => Look::NotReady,
            (false, Some(_)) => Look::Starting,
        };
        let looks: Vec<Look> = (0..ready.len()).map(look).collect();
        for (settled, is_ready) in settled.iter_mut().zip(ready.iter()) {
            *settled |= *is_ready;
        }
        looks
    }

    /// A node's process ended or begins anew.
    fn unsettle(&self, at: usize) {
        self.ready.lock()[at] = false;
        self.settled.borrow_mut()[at] = false;
    }
}

async fn probe(client: Client, at: usize, ready: Arc<Mutex<Vec<bool>>>) {
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let request = client.request(Method::GET, "/ready").timeout(PROBE_TIME_MAX);
        let is_ready = client.send(request).await.is_ok();
        ready.lock()[at] = is_ready;
    }
}

async fn show(args: &DemoArgs, nodes: &mut Nodes, screen: &mut Screen) -> Result<(), CliError> {
    let fleet = Fleet::of(nodes.plan())?;
    until_ready(&fleet, nodes, screen).await?;
    screen.clear();
    let sender = Sender::over(fleet.clients.clone(), RETRY_FOR);
    let now_ms = SystemClock::new().wall_ms();
    let (totals, took) = backfill(&sender, args.rate, now_ms).await?;
    let number = |n: u64| grouped(&n.to_string());
    let filled = format!(
        "the last 24 h, {} events in {:.1} s ({} new, {} already there)",
        number(totals.sent),
        took.as_secs_f64(),
        number(totals.accepted),
        number(totals.duplicates)
    );
    eprintln!("{}", banner(screen.paint, nodes, &filled, args.rate));

    *screen = Screen::new();
    let (tally, warnings) = (RefCell::new(Tally::new()), RefCell::new(Vec::new()));
    let sending =
        live(&sender, args.rate, now_ms, |sent| tally.borrow_mut().note(sent), |warning| warnings.borrow_mut().push(warning.to_owned()));
    tokio::select! {
        ended = sending => ended,
        ended = watch(&fleet, nodes, screen, &tally, &warnings, args.restart) => ended,
    }
}

async fn until_ready(fleet: &Fleet, nodes: &mut Nodes, screen: &Screen) -> Result<(), CliError> {
    let began = Instant::now();
    loop {
        let looks = fleet.looks(nodes);
        screen.starting(&fleet.names, &looks);
        if let Some((at, _, status)) = nodes.ended().first() {
            let (node, log) = (&nodes.plan().nodes[*at], nodes.log_end(*at));
            return Err(CliError::Failed(format!("{} {}. The end of {}:\n{log}", node.name, how(*status), node.log.display())));
        }
        if looks.iter().all(|look| *look == Look::Ready) {
            return Ok(());
        }
        if began.elapsed() > READY_TIME_MAX {
            let late = looks.iter().position(|look| *look != Look::Ready).unwrap_or(0);
            let node = &nodes.plan().nodes[late];
            return Err(CliError::Failed(format!(
                "{} is not ready after {} s. The end of {}:\n{}",
                node.name,
                READY_TIME_MAX.as_secs(),
                node.log.display(),
                nodes.log_end(late)
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Acks, as they are shown.
struct Tally {
    traffic: Traffic,
    recent: VecDeque<(Instant, u64)>,
    /// Longest wait for an ack since it was last taken.
    longest: Cell<Duration>,
}

impl Tally {
    fn new() -> Self {
        Self { traffic: Traffic::default(), recent: VecDeque::new(), longest: Cell::new(Duration::ZERO) }
    }

    fn note(&mut self, sent: Sent) {
        match sent {
            Sent::Begun(at) => self.traffic.waiting_since = Some(at),
            Sent::Acked { events, took } => {
                self.traffic.waiting_since = None;
                self.traffic.acked += events;
                self.traffic.last_ack = took;
                self.longest.set(self.longest.get().max(took));
                self.recent.push_back((Instant::now(), events));
            }
        }
    }

    fn traffic(&mut self) -> Traffic {
        while self.recent.front().is_some_and(|(at, _)| at.elapsed() > RATE_OVER) {
            self.recent.pop_front();
        }
        let events: u64 = self.recent.iter().map(|(_, events)| events).sum();
        Traffic { per_second: events as f64 / RATE_OVER.as_secs_f64(), ..self.traffic }
    }
}

/// A node that went away.
struct Loss {
    at: usize,
    when: Instant,
    restarts: bool,
    told: bool,
}

async fn watch(
    fleet: &Fleet,
    nodes: &mut Nodes,
    screen: &mut Screen,
    tally: &RefCell<Tally>,
    warnings: &RefCell<Vec<String>>,
    restart: bool,
) -> Result<(), CliError> {
    let paint = screen.paint;
    let mut losses: Vec<Loss> = Vec::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        for (at, pid, status) in nodes.ended() {
            fleet.unsettle(at);
            tally.borrow().longest.set(Duration::ZERO);
            screen.say(&format!("  {}", paint.red(&format!("✗ {} (pid {pid}) {}", fleet.names[at], how(status)))));
            if restart {
                screen.say(&format!("    it is started again in {} s", RESTART_AFTER.as_secs()));
            } else {
                screen.say(&paint.dim(&format!("    again: {}", nodes.command(at))));
            }
            losses.push(Loss { at, when: Instant::now(), restarts: restart, told: false });
        }
        for loss in &mut losses {
            if loss.restarts && loss.when.elapsed() >= RESTART_AFTER {
                loss.restarts = false;
                nodes.spawn(loss.at)?;
                fleet.unsettle(loss.at);
                let pid = nodes.pids()[loss.at].unwrap_or_default();
                screen.say(&format!("  {}", paint.cyan(&format!("↻ {} is started again, pid {pid}", fleet.names[loss.at]))));
            }
            if !loss.told && loss.when.elapsed() >= TELL_AFTER {
                loss.told = true;
                let tally = tally.borrow();
                let longest = tally.longest.get().max(tally.traffic.waiting_since.map_or(Duration::ZERO, |since| since.elapsed()));
                let text = format!("✓ since {} went, the longest wait for an ack was {:.2} s", fleet.names[loss.at], longest.as_secs_f64());
                let is_open = tally.traffic.waiting_since.is_some_and(|since| since.elapsed() > TELL_AFTER / 2);
                let text = if is_open {
                    paint.red(&format!("✗ since {} went, no event is acked", fleet.names[loss.at]))
                } else {
                    paint.green(&text)
                };
                screen.say(&format!("  {text}"));
            }
        }
        losses.retain(|loss| loss.restarts || !loss.told);
        for warning in warnings.borrow_mut().drain(..) {
            screen.say(&format!("  {}", paint.yellow(&warning)));
        }
        let traffic = tally.borrow_mut().traffic();
        screen.keep_up(&fleet.names, &fleet.looks(nodes), traffic);
    }
}
