//! Real processes and real faults: what is promised of a fleet (I5-I7, Q2, Q3, Q8, Q9, C1-C4, C6, C9), seen from outside.

#[path = "fleet/coming_back.rs"]
mod coming_back;
#[path = "fleet/desk.rs"]
mod desk;
#[path = "fleet/figures.rs"]
mod figures;
#[path = "fleet/founding.rs"]
mod founding;
#[path = "fleet/majority.rs"]
mod majority;
#[path = "fleet/moved_away.rs"]
mod moved_away;
#[path = "fleet/promql.rs"]
mod promql;
#[path = "fleet/short.rs"]
mod short;
#[path = "fleet/strangers.rs"]
mod strangers;
