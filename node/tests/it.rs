//! Tests of a whole node, in this process and as a child.

mod http {
    mod demo;
    pub(crate) mod harness;
    mod openapi;
    mod process;

    mod admin {
        mod definitions;
        mod ops;
    }

    mod read {
        mod cache;
        mod formats;
        mod live;
        mod named;
        mod prometheus;
        mod seed;
        mod tail;
        mod token;
    }

    mod server {
        mod browsers;
        mod clients;
        mod slow;
    }

    mod write {
        mod back_pressure;
        mod bad_input;
        mod cardinality;
        mod dead_letters;
        mod ingest;
    }
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
