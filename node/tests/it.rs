//! Tests of a whole node, in this process and as a child.

mod http {
    mod back_pressure;
    mod bad_input;
    mod browsers;
    mod cache;
    mod cardinality;
    mod clients;
    mod dead_letters;
    mod definitions;
    mod demo;
    mod formats;
    pub(crate) mod harness;
    mod ingest;
    mod live;
    mod named;
    mod openapi;
    mod ops;
    mod process;
    mod prometheus;
    mod seed;
    mod slow;
    mod tail;
    mod token;
}

mod oracle {
    mod ask;
    mod bounds;
    mod calendar;
    mod check;
    mod clock;
    mod events;
    mod model;
    mod property;
    mod random;
    mod receipts;
    mod world;
}
