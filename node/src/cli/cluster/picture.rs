//! The fleet drawn as text: nodes, a cell for each shard, what moves.

use std::time::Duration;

use super::super::output::paint::Paint;
use super::super::output::printable;
use super::view::{Change, Cluster, Health, Node, Shard, State, ranges};

/// Cells in a line of shards.
const CELLS: usize = 32;
const BAR: usize = 20;

pub fn picture(cluster: &Cluster, paint: Paint) -> String {
    let mut text = header(cluster, paint);
    text.push('\n');
    text.push_str(&nodes(cluster, paint));
    text.push('\n');
    text.push_str(&shards(cluster, paint));
    text.push_str(&moves(cluster, paint));
    text
}

fn header(cluster: &Cluster, paint: Paint) -> String {
    let (nodes, shards) = (cluster.nodes.len(), cluster.shards.len());
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let copies = if cluster.replication == 1 { "1 copy of each".to_owned() } else { format!("{} copies of each", cluster.replication) };
    let seen = cluster.seen_by().map(|name| format!("   seen by {}", printable(name))).unwrap_or_default();
    let what = format!("{nodes} node{}, {shards} shard{}, {copies}", plural(nodes), plural(shards));
    format!("  {}   {what}{}\n", paint.bold(&printable(&cluster.name)), paint.dim(&seen))
}

/// A column: its head and a cell for each node, without colour; numbers stand on the right.
struct Column {
    head: &'static str,
    cells: Vec<String>,
    right: bool,
}

fn nodes(cluster: &Cluster, paint: Paint) -> String {
    let column = |head, right, cell: &dyn Fn(&Node) -> String| Column { head, cells: cluster.nodes.iter().map(cell).collect(), right };
    let unknown = || "–".to_owned();
    let columns = [
        column("NODE", false, &|node| printable(&node.name)),
        column("STATE", false, &|node| node.state().as_str().to_owned()),
        column("SINCE", true, &|node| node.since().map_or_else(unknown, spoken)),
        column("LEADS", true, &|node| cluster.leads(node).to_string()),
        column("SHARDS", true, &|node| cluster.held(node).to_string()),
        column("LAG", true, &|node| cluster.lag(node).map_or_else(unknown, |lag| lag.to_string())),
        column("VERSION", false, &|node| node.version.as_deref().map_or_else(unknown, printable)),
        column("HTTP", false, &|node| node.http.as_deref().map_or_else(unknown, printable)),
    ];
    let width = |column: &Column| column.cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(column.head.len());
    let padded = |column: &Column, cell: &str| {
        let space = " ".repeat(width(column).saturating_sub(cell.chars().count()));
        if column.right { format!("{space}{cell}") } else { format!("{cell}{space}") }
    };
    let heads: Vec<String> = columns.iter().map(|column| padded(column, column.head)).collect();
    let mut text = format!("  {}\n", paint.dim(format!("  {}", heads.join("   ")).trim_end()));
    for (at, node) in cluster.nodes.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| padded(column, &column.cells[at])).collect();
        let line = cells.join("   ");
        let line = match node.state() {
            State::Active => format!("{} {line}", paint.green("●")),
            State::Draining | State::NotReady | State::ReadOnly => format!("{} {}", paint.yellow("◐"), paint.yellow(&line)),
            State::Silent => format!("{} {}", paint.red("✗"), paint.red(&line)),
        };
        text.push_str(&format!("  {}\n", line.trim_end()));
    }
    for node in &cluster.nodes {
        let deviates = node.deviates.as_deref().unwrap_or_default();
        if !deviates.is_empty() {
            let line = format!("{} is configured otherwise than the cluster, which counts: {}", node.name, deviates.join(", "));
            text.push_str(&format!("    {}\n", paint.yellow(&printable(&line))));
        }
    }
    text
}

fn cell(paint: Paint, health: Health) -> String {
    match health {
        Health::Whole => paint.green("■"),
        Health::Reduced => paint.yellow("■"),
        Health::Moving => paint.cyan("◧"),
        Health::NoLeader => paint.red("□"),
        Health::Stopped => paint.red("✗"),
    }
}

fn shards(cluster: &Cluster, paint: Paint) -> String {
    let mut text = String::new();
    for (at, row) in cluster.shards.chunks(CELLS).enumerate() {
        let head = if at == 0 { "SHARDS" } else { "" };
        let cells: Vec<String> = row.iter().map(|shard| cell(paint, cluster.health(shard))).collect();
        text.push_str(&format!("    {}  {}\n", paint.dim(&format!("{head:6}")), cells.join(" ")));
    }
    for (health, says) in [
        (Health::NoLeader, "without a leader: they take nothing"),
        (Health::Stopped, "stopped: see the node's log"),
        (Health::Reduced, "with fewer replicas than they should have"),
        (Health::Moving, "on the move"),
    ] {
        let those = cluster.of_health(health);
        if those.is_empty() {
            continue;
        }
        let line = format!("{} {says} ({})", those.len(), ranges(&those));
        let line = match health {
            Health::NoLeader | Health::Stopped => paint.red(&line),
            Health::Reduced => paint.yellow(&line),
            _ => paint.cyan(&line),
        };
        text.push_str(&format!("            {line}\n"));
    }
    if cluster.of_health(Health::Whole).len() == cluster.shards.len() && !cluster.shards.is_empty() {
        text.push_str(&format!("            {}\n", paint.green("every shard has its leader and its replicas")));
    }
    text
}

fn moves(cluster: &Cluster, paint: Paint) -> String {
    let moving: Vec<&Shard> = cluster.shards.iter().filter(|shard| cluster.health(shard) == Health::Moving).collect();
    let mut text = String::new();
    for (at, shard) in moving.into_iter().enumerate() {
        let head = if at == 0 { "\n    MOVES   " } else { "            " };
        let leaves = if shard.going.is_empty() { String::new() } else { format!(" from {}", shard.going.join(", ")) };
        let comes = shard.coming.iter().map(|coming| format!("to {}  {}", coming.node, progress(coming.done_bytes, coming.total_bytes)));
        let comes: Vec<String> = comes.collect();
        text.push_str(&format!("{}shard {}{} {}\n", paint.dim(head), shard.shard, printable(&leaves), printable(&comes.join(", "))));
    }
    text
}

fn progress(done: Option<u64>, total: Option<u64>) -> String {
    let (Some(done), Some(total)) = (done, total.filter(|total| *total > 0)) else { return "catching up".to_owned() };
    let filled = (done.min(total) as usize * BAR) / total as usize;
    let bar: String = (0..BAR).map(|at| if at < filled { '━' } else { '╌' }).collect();
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    format!("{bar} {:>3} %  {} of {} MiB", done.min(total) * 100 / total, mib(done), mib(total))
}

/// One line of what happened, for people.
pub fn told(change: &Change, paint: Paint) -> String {
    match change {
        Change::Joined(node) => paint.green(&format!("{} is new", printable(node))),
        Change::Left(node) => paint.yellow(&format!("{} belongs to the fleet no more", printable(node))),
        Change::Node(node, State::Silent) => paint.red(&format!("{} is silent", printable(node))),
        Change::Node(node, State::Active) => paint.green(&format!("{} is back", printable(node))),
        Change::Node(node, state) => paint.yellow(&format!("{} is {}", printable(node), state.as_str())),
        Change::NoLeader(shards) => paint.red(&format!("without a leader: {}", ranges(shards))),
        Change::Leads(node, shards) => {
            let plural = if shards.len() == 1 { "" } else { "s" };
            paint.green(&format!("{} leads shard{plural} {} now", printable(node), ranges(shards)))
        }
    }
}

/// A duration as one says it, in its largest unit or two.
pub fn spoken(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::fleet;
    use super::*;

    #[test]
    fn fleet_in_order_is_drawn_in_columns() {
        let text = picture(&fleet(None, None), Paint::NONE);
        let expected = "\x20 demo   3 nodes, 4 shards, 3 copies of each   seen by n1

    NODE   STATE    SINCE   LEADS   SHARDS   LAG   VERSION   HTTP
  ● n1     active   1 min       2        4     0   0.1.0     127.0.0.1:7070
  ● n2     active   1 min       1        4     1   0.1.0     127.0.0.1:7071
  ● n3     active   1 min       1        4     2   0.1.0     127.0.0.1:7072

    SHARDS  ■ ■ ■ ■
            every shard has its leader and its replicas
";
        let shown: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(shown, expected.lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_shards_that_it_touches() {
        let text = picture(&fleet(Some("n2"), None), Paint::NONE);
        assert!(text.contains("✗ n2     silent"), "{text}");
        assert!(text.contains("■ □ ■ ■") && text.contains("1 without a leader: they take nothing (1)"), "{text}");
        assert!(text.contains("3 with fewer replicas than they should have (0, 2-3)"), "{text}");
    }

    #[test]
    fn a_configuration_that_differs_is_told() {
        let mut cluster = fleet(None, None);
        cluster.nodes[1].deviates = Some(vec!["windows.lateness".to_owned(), "metrics".to_owned()]);
        let text = picture(&cluster, Paint::NONE);
        assert!(text.contains("    n2 is configured otherwise than the cluster, which counts: windows.lateness, metrics\n"), "{text}");
    }

    #[test]
    fn moves_show_how_far_they_are() {
        let mut cluster = fleet(None, None);
        let coming = serde_json::json!([{ "node": "n2", "done_bytes": 3 << 20, "total_bytes": 4 << 20 }]);
        cluster.shards[2].coming = serde_json::from_value(coming).expect("read");
        cluster.shards[2].going = vec!["n1".to_owned()];
        let text = picture(&cluster, Paint::NONE);
        assert!(text.contains("MOVES   shard 2 from n1 to n2  ━━━━━━━━━━━━━━━╌╌╌╌╌  75 %  3.0 of 4.0 MiB"), "{text}");
        assert_eq!(progress(None, None), "catching up");
        assert_eq!(progress(Some(5), Some(0)), "catching up");
    }

    #[test]
    fn times_are_said_in_their_largest_units() {
        let said = |s| spoken(Duration::from_secs(s));
        assert_eq!([said(3), said(61), said(7_260), said(90_000)], ["3 s", "1 min", "2 h 1 min", "1 d 1 h"]);
    }
}
