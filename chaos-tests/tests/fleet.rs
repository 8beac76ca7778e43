//! Real processes and real faults: what is promised of a fleet (I5-I7, Q2, Q3, Q8, C1-C4, C6, C9), seen from outside.

#[path = "fleet/short.rs"]
mod short;
