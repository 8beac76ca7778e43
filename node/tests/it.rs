//! Tests of a whole node, in this process and as a child.

mod http {
    mod back_pressure;
    mod bad_input;
    mod browsers;
    mod cache;
    mod cardinality;
    mod clients;
    mod dead_letters;
    mod formats;
    mod harness;
    mod ingest;
    mod named;
    mod openapi;
    mod ops;
    mod process;
    mod seed;
    mod slow;
    mod tail;
    mod token;
}
